"""Trials of a pack do their task side by side: their answers are written together, through the bank.

First the pack reads each question with its right answer, as in an evaluation: what lies below the first adapter is
computed once for all trials. As far as a trial's own choice at each place is the right answer's token, it has written
that. Only what is left is written token by token (`ftlib/evaluation/greedy.py`), all trials' rows in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

from ftlib.evaluation.answers import decoder_of, ends_of
from ftlib.evaluation.greedy import Row
from ftlib.evaluation.trial_tasks import TrialTask
from ftlib.methods.pack_losses import Scored, Tokens
from ftlib.models.bank_routes import Mix, Route
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.row_passes import passes
from ftlib.pack.span_attention import ATTENTION
from ftlib.pack.token_layout import Block
from ftlib.run.context import Setting


class TaskAnswers:
    """The task that trials are compared by, done by any slots of a bank."""

    def __init__(self, base: FrozenBase, setting: Setting) -> None:
        self.base, self.setting = base, setting

    @cached_property
    def task(self) -> TrialTask | None:
        """None where trials are compared by something else."""
        experiment, template = self.setting.experiment(), self.base.data.chat_template
        return TrialTask.of(experiment, self.setting.metric, self.base.tokenizer, template)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def numbers(self, slots: Sequence[int] | None, roomy: bool = True) -> list[dict[str, Any]]:
        """The task's numbers of each slot; None is the base as it is. Empty mappings where there is no task. Without
        room, the right answers are read in passes of `per_device_eval_batch_size` rows."""
        count = 1 if slots is None else len(slots)
        if self.task is None:
            return [{}] * count
        writer, ends = self.task.writer, ends_of(self.base.model, self.base.tokenizer)
        rows = [writer.rows(self.task.questions, place) for place in range(count)]
        self._check_drafts(rows, slots, ends, roomy)
        self._write_on([row for some in rows for row in some if not row.ended(ends)], slots, ends)
        return [self.task.numbers_of(writer.answers(some, ends, 0.0)) for some in rows]

    def _check_drafts(
        self, rows: Sequence[Sequence[Row]], slots: Sequence[int] | None, ends: frozenset[int], roomy: bool
    ) -> None:
        """What each trial writes of the right answers. `rows` are [trials][questions], the same questions for all."""
        least = self.setting.experiment().train.per_device_eval_batch_size
        route = None if slots is None else Route(slots)
        tokens = [Tokens.answer(row.prompt, row.draft) for row in rows[0]]
        for numbers in passes([[one] for one in tokens], least, self.base.classes, roomy):
            parts = [[some[number] for number in numbers] for some in rows]
            block = Block.of([tokens[number] for number in numbers])
            with self.base.computing([block] * len(parts), route) as outputs:
                for part, scored in zip(parts, outputs, strict=True):
                    self._take(part, scored, ends)

    def _take(self, rows: Sequence[Row], scored: Scored, ends: frozenset[int]) -> None:
        chosen = scored.logits.argmax(-1).tolist()
        nlls = (-scored.sums()).tolist() if self.task is not None and self.task.writer.scores else [0.0] * len(rows)
        bounds = [0, *torch.tensor([len(row.draft) for row in rows]).cumsum(0).tolist()]
        for row, (first, last), nll in zip(rows, pairwise(bounds), nlls, strict=True):
            row.take(chosen[first:last], ends)
            row.nll, row.nll_tokens = nll, len(row.draft)

    def _write_on(self, rows: list[Row], slots: Sequence[int] | None, ends: frozenset[int]) -> None:
        """What is left of the answers, by the model's own attention with its cache."""
        if not rows or self.task is None:
            return
        model, bank = self.base.model, self.base.bank
        decoder = decoder_of(model, self.task.writer, ends, self._router(slots))
        decoder.scores = False
        for row in rows:
            row.draft = list(row.written)
        model.set_attn_implementation("sdpa")
        try:
            with bank.routed(None):
                decoder.write(rows)
        finally:
            model.set_attn_implementation(ATTENTION)

    def _router(self, slots: Sequence[int] | None) -> Callable[[Sequence[int]], None]:
        """Sets the bank's route for the rows of each pass; `places` are numbers among `slots`."""
        bank = self.base.bank
        if slots is None:
            return lambda places: None
        weights = bank.scaled(slots, self.base.model.dtype)
        known: dict[tuple[int, ...], torch.Tensor] = {tuple(range(len(slots))): weights}

        def routed(places: Sequence[int]) -> None:
            there = tuple(sorted(set(places)))
            if there not in known:
                known[there] = weights[list(there)]
            bank.route = Mix([there.index(place) for place in places], bank.device, known[there])

        return routed
