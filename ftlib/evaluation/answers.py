"""Greedy answers of a loaded model to many chats at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch

Chat = Sequence[Mapping[str, str]]
ROWS = 48  # at once: reading the weights is most of a step on a CPU


def answers(model: Any, tokenizer: Any, chats: Sequence[Chat], max_new_tokens: int) -> list[str]:
    """The answer to each chat, in their order, up to the token that ends it or to `max_new_tokens`.

    What all chats begin with (instructions, examples) is computed once, and its keys and values are kept: exact, since
    attention looks back only.
    """
    prompts = [_ids(tokenizer, chat) for chat in chats]
    shared = _shared([prompt[:-1] for prompt in prompts])
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    found: dict[int, str] = {}
    with torch.inference_mode():
        cache = model(torch.tensor([shared]), use_cache=True).past_key_values if shared else None
        for start in range(0, len(order), ROWS):
            numbers = order[start : start + ROWS]
            rows = [prompts[number][len(shared) :] for number in numbers]
            found |= zip(numbers, _written(model, tokenizer, shared, cache, rows, max_new_tokens), strict=True)
    return [found[number] for number in range(len(prompts))]


def _ids(tokenizer: Any, chat: Chat) -> list[int]:
    text = tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _shared(prompts: Sequence[list[int]]) -> list[int]:
    """The tokens with which all chats begin."""
    alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
    return [tokens[0] for tokens in alike]


def _written(model: Any, tokenizer: Any, shared: list[int], cache: Any, rows: list[list[int]], most: int) -> list[str]:
    """What follows `shared` + each row. Shorter rows are padded between the two, where nobody looks."""
    width, pad = max(map(len, rows)), tokenizer.pad_token_id
    ids = torch.tensor([[*shared, *[pad] * (width - len(row)), *row] for row in rows])
    seen = torch.tensor([[1] * len(shared) + [0] * (width - len(row)) + [1] * len(row) for row in rows])
    if cache is not None:
        cache = copy.deepcopy(cache)
        cache.batch_repeat_interleave(len(rows))
    out = model.generate(
        input_ids=ids,
        attention_mask=seen,
        past_key_values=cache,
        max_new_tokens=most,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
    )
    return [str(text) for text in tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)]
