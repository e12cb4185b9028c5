"""A beginning that prompts have in common goes through the model once, and changes no answer."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from serve.engine.batch import CHUNK, Batch
from serve.engine.prefixes import Prefixes, common
from serve.engine.slots import Slots

from .test_batch import GROUPED, greedy, run, sequence, tokens

SHARED = 40


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**GROUPED)).eval()


def batch_of(model: Any) -> Batch:
    return Batch(model, Slots(model, 1, torch.float32))


def chats(count: int, own: int = 5, shared: int = SHARED, **options: Any) -> list[Any]:
    draw = random.Random(0)
    begin = tokens(draw, shared)
    return [sequence(begin + tokens(draw, own), 3, **options) for _ in range(count)]


def read(batch: Batch, group: list[Any]) -> int:
    """The tokens of prompts that went through the model."""
    before = batch.tokens
    batch.admit(group)
    return batch.tokens - before


def test_prompts_that_come_together_read_their_beginning_once(model: Any) -> None:
    group = chats(4)
    batch = batch_of(model)
    assert read(batch, group) == SHARED + 5 + 3 * 5
    run(batch, [], 4)
    for row in group:
        assert row.tokens == greedy(model, row.prompt, 3, eos_token_id=None)


def test_a_first_token_does_not_wait_for_the_prompts_read_behind_it(model: Any) -> None:
    group = chats(4)
    passes = batch_of(model).admissions(group)
    assert next(passes) == group[:1]
    assert [len(row.tokens) for row in group] == [1, 0, 0, 0]
    assert next(passes) == group[1:]
    assert list(passes) == []


def test_a_later_prompt_reads_on_behind_it_and_another_client_does_not(model: Any) -> None:
    first, second, third = chats(3)
    third.client = "other"
    batch = batch_of(model)
    assert [read(batch, [row]) for row in (first, second, third)] == [SHARED + 5, 5, SHARED + 5]
    run(batch, [], 3)
    assert second.tokens == greedy(model, second.prompt, 3, eos_token_id=None)


def test_prompts_that_share_a_few_tokens_more_are_read_in_the_same_pass(model: Any) -> None:
    """They read those anew: 16 passes of one row each would take longer than all of it at once."""
    first, *others = chats(4)
    for number, row in enumerate(others):
        row.prompt[SHARED : SHARED + number] = first.prompt[SHARED : SHARED + number]
    batch, passes = batch_of(model), []
    run(batch, [first], 1)
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        assert read(batch, others) == 3 * 5
        assert len(passes) == 1
    finally:
        hook.remove()
    run(batch, [], 3)
    for row in others:
        assert row.tokens == greedy(model, row.prompt, 3, eos_token_id=None)


def test_a_long_prompt_reads_on_behind_it(model: Any) -> None:
    row = chats(1, CHUNK + 50)[0]
    twin = sequence([*row.prompt[:-3], 7, 8, 9], 3)
    batch = batch_of(model)
    run(batch, [row], 1)
    assert read(batch, [twin]) == 3
    run(batch, [], 1)
    assert twin.tokens == greedy(model, twin.prompt, 3, eos_token_id=None)


def test_the_same_prompt_reads_its_last_token(model: Any) -> None:
    batch = batch_of(model)
    read(batch, chats(1))
    assert read(batch, chats(1)) == 1
    assert len(batch._prefixes._kept) == 1


def test_after_a_failure_nothing_is_kept(model: Any) -> None:
    batch = batch_of(model)
    read(batch, chats(1))
    batch.clear()
    assert read(batch, chats(1)) == SHARED + 5


def test_what_is_kept_has_a_bound(model: Any) -> None:
    kept, batch = Prefixes(100), batch_of(model)
    batch._prefixes = kept
    for number in range(10):
        read(batch, [sequence(tokens(random.Random(number), 45), 1)])
    assert len(kept._kept) == 2
    assert kept._tokens == 90


def test_common_is_what_both_begin_with() -> None:
    draw = random.Random(1)
    for _ in range(200):
        length, other = draw.randrange(9), draw.randrange(9)
        one, two = ([draw.randrange(2) for _ in range(count)] for count in (length, other))
        slow = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(length, other))
        assert common(one, two) == slow
