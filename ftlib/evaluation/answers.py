"""Greedy answers of a loaded model to many questions at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import PeftModel, PromptLearningConfig

from ftlib.evaluation.greedy import Decoder, Ids, Row
from ftlib.evaluation.task import Answer, Question, ends_at_blank_line, written

BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
PADDED_ROWS = 16  # at once, where transformers' own loop writes


class Writer:
    """A tokenizer with a template: questions to rows of tokens, and what was written back to text.

    `template` None writes questions without any. `most` is the longest answer, in tokens; `scores` asks for the
    likelihood of the references.
    """

    def __init__(self, tokenizer: Any, template: str | None, most: int, scores: bool = False) -> None:
        self.tokenizer, self.template, self.most, self.scores = tokenizer, template, most, scores

    def rows(self, questions: Sequence[Question], slot: int = 0) -> list[Row]:
        """A row each. Raises DataError where the template cannot take a question."""
        return [self._row(question, slot) for question in questions]

    def _row(self, question: Question, slot: int) -> Row:
        to_blank_line = ends_at_blank_line(question.prompt, self.template)
        return Row(self._prompt(question), self._draft(question), self.most, slot, to_blank_line)

    def _prompt(self, question: Question) -> Ids:
        text = written(question.prompt, self.tokenizer, self.template)
        ids: Ids = self.tokenizer(text, add_special_tokens=self.template is None)["input_ids"]
        return ids

    def _draft(self, question: Question) -> Ids:
        ids: Ids = self.tokenizer(question.reference, add_special_tokens=False)["input_ids"]
        ids = [*ids, self.tokenizer.eos_token_id]
        return ids if self.scores else ids[: self.most]

    def answers(self, rows: Sequence[Row], ends: frozenset[int], seconds: float) -> list[Answer]:
        """What was written, in the order of the rows. They took `seconds` together: each has its part of it."""
        share = seconds / max(1, len(rows))
        return [self._answer(row, ends, share) for row in rows]

    def _answer(self, row: Row, ends: frozenset[int], seconds: float) -> Answer:
        ids = row.written[:-1] if row.written and row.written[-1] in ends else row.written
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        if row.to_blank_line:
            text = BLANK_LINE.split(text.lstrip("\n"), maxsplit=1)[0]
        if self.scores:
            return Answer(text, len(row.written), seconds, row.nll, row.nll_tokens)
        return Answer(text, len(row.written), seconds)


def answers(model: Any, writer: Writer, questions: Sequence[Question]) -> list[Answer]:
    """The answer to each question, in their order, up to the token that ends it or to the writer's `most`."""
    was_training = model.training
    model.eval()
    try:
        rows, ends = writer.rows(questions), ends_of(model, writer.tokenizer)
        started = time.perf_counter()
        if why_not_drafted(model) is None:
            decoder_of(model, writer, ends).write(rows)
        else:
            _generate(model, writer, rows, ends)
        return writer.answers(rows, ends, time.perf_counter() - started)
    finally:
        model.train(was_training)


def decoder_of(
    model: Any, writer: Writer, ends: frozenset[int], routed: Callable[[Sequence[int]], Any] = lambda slots: None
) -> Decoder:
    """What writes with a model. `routed` hears before each pass which slot each of its rows has."""
    vocabulary = model.config.get_text_config().vocab_size
    device = next(model.parameters()).device
    return Decoder(model, ends, pad_of(writer.tokenizer), vocabulary, device, writer.scores, routed)


def pad_of(tokenizer: Any) -> int:
    """A token for places where nobody looks."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, and those that the model's generation config names."""
    config = getattr(model, "generation_config", None)
    told = getattr(config, "eos_token_id", None)
    listed = told if isinstance(told, list) else [told]
    return frozenset(int(token) for token in (*listed, tokenizer.eos_token_id) if token is not None)


def why_not_drafted(model: Any) -> str | None:
    """Why drafts cannot be checked with a model; None where they can. Such a model writes by transformers' own loop."""
    if isinstance(model, PeftModel) and isinstance(model.active_peft_config, PromptLearningConfig):
        return "its adapter puts tokens of its own before the prompt"
    config = model.config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"its layers are of other kinds ({', '.join(sorted(kinds))})"
    return None


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _generate(model: Any, writer: Writer, rows: Sequence[Row], ends: frozenset[int]) -> None:
    """By transformers' loop, prompts padded on the left. The references' likelihoods are not computed."""
    pad = pad_of(writer.tokenizer)
    device = next(model.parameters()).device
    order = sorted(rows, key=lambda row: len(row.prompt))
    for start in range(0, len(order), PADDED_ROWS):
        batch = order[start : start + PADDED_ROWS]
        width = max(len(row.prompt) for row in batch)
        gaps = [width - len(row.prompt) for row in batch]
        ids = torch.tensor([[pad] * gap + row.prompt for gap, row in zip(gaps, batch, strict=True)], device=device)
        seen = torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps], device=device)
        out = model.generate(
            input_ids=ids, attention_mask=seen, max_new_tokens=writer.most, do_sample=False,
            eos_token_id=sorted(ends), pad_token_id=pad,
        )  # fmt: skip
        for row, written_ids in zip(batch, out[:, -(out.shape[1] - width) :].tolist(), strict=True):
            row.written = _ended(written_ids, ends) if out.shape[1] > width else []


def _ended(ids: Ids, ends: frozenset[int]) -> Ids:
    """Up to the first token that ends an answer, with it."""
    last = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: last + 1]
