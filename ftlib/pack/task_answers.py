"""Trials of a pack do their task side by side: their answers are written together, through the bank.

First the pack reads each question with its right answer, as in an evaluation: what questions begin with alike is
computed once, and what lies below the first adapter once for all trials. As far as a trial's own choice at each place
is the right answer's token, it has written that. Only what is left is written token by token, from the keys and values
of that reading (`read_once.py`, `ftlib/evaluation/greedy.py`), all trials' rows in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

from ftlib.evaluation.answers import Writer, decoder_of, ends_of
from ftlib.evaluation.greedy import PLACES, Row
from ftlib.evaluation.trial_tasks import TrialTask, trial_tasks
from ftlib.methods.pack_losses import Scored, Tokens
from ftlib.models.bank_routes import Mix, Route
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.read_once import Left, Reading, places_kept
from ftlib.pack.row_passes import passes
from ftlib.pack.span_attention import ATTENTION
from ftlib.pack.token_layout import Block
from ftlib.run.context import Setting


class TaskAnswers:
    """The task that trials are compared by, done by any slots of a bank."""

    def __init__(self, base: FrozenBase, setting: Setting) -> None:
        self.base, self.setting = base, setting

    @cached_property
    def tasks(self) -> list[TrialTask]:
        """Those that trials do at their evaluations."""
        setting, template = self.setting, self.base.data.chat_template
        return trial_tasks(setting.experiment(), setting.metric, setting.judged_by, self.base.tokenizer, template)

    def numbers(
        self, slots: Sequence[int] | None, questions: Sequence[int] | None = None, roomy: bool = True
    ) -> list[dict[str, Any]]:
        """The tasks' numbers of each slot; None is the base as it is. Empty mappings where there is no task.

        `questions` are some of the task that trials are compared by, None all; of other tasks all are answered.
        Without room, the right answers are read in passes of `per_device_eval_batch_size` rows.
        """
        found: list[dict[str, Any]] = [{} for _ in range(1 if slots is None else len(slots))]
        for task in self.tasks:
            some = task.on(questions if task.metric == self.setting.metric else None)
            for of_slot, numbers in zip(found, self._numbers(some, slots, roomy), strict=True):
                of_slot |= numbers
        return found

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _numbers(self, task: TrialTask, slots: Sequence[int] | None, roomy: bool) -> list[dict[str, Any]]:
        count = 1 if slots is None else len(slots)
        writer, ends = task.writer, ends_of(self.base.model, self.base.tokenizer)
        rows = [writer.rows(task.questions, place) for place in range(count)]
        unfinished: list[Left] = []
        for left in self._read(rows, slots, ends, roomy, writer.scores):
            unfinished.append(left)
            if sum(part.seen.numel() for part in unfinished) > PLACES:
                self._write_on(unfinished, slots, ends, writer)
        self._write_on(unfinished, slots, ends, writer)
        return [task.numbers_of(writer.answers(some, ends, 0.0)) for some in rows]

    def _read(
        self,
        rows: Sequence[Sequence[Row]],
        slots: Sequence[int] | None,
        ends: frozenset[int],
        roomy: bool,
        scores: bool,
    ) -> Iterator[Left]:
        """What each trial writes of the right answers; gives, pass after pass, the rows that are not at their end.
        `rows` are [trials][questions], the same questions for all."""
        model, least = self.base.model, self.setting.experiment().train.per_device_eval_batch_size
        route = None if slots is None else Route(slots)
        tokens = [Tokens.answer(row.prompt, row.draft).up_to_last_picked for row in rows[0]]
        room = places_kept(model.config.get_text_config(), model.dtype) if roomy else 0
        for numbers in passes([[one] for one in tokens], least, self.base.classes, room):
            block, reading = Block.of([tokens[number] for number in numbers]), Reading()
            parts = [[some[number] for number in numbers] for some in rows]
            with self.base.computing([block] * len(parts), route, reading.layers) as outputs:
                for part, scored in zip(parts, outputs, strict=True):
                    self._take(part, scored, ends, scores)
            going = [
                (row, trial, places[: len(row.prompt) + len(row.written) - 1])
                for trial, part in enumerate(parts)
                for row, places in zip(part, block.places, strict=True)
                if not row.ended(ends)
            ]
            if going:
                yield reading.left(*zip(*going, strict=True))

    @staticmethod
    def _take(rows: Sequence[Row], scored: Scored, ends: frozenset[int], scores: bool) -> None:
        chosen = scored.logits.argmax(-1).tolist()
        nlls = (-scored.sums()).tolist() if scores else [0.0] * len(rows)
        bounds = [0, *torch.tensor([len(row.draft) for row in rows]).cumsum(0).tolist()]
        for row, (first, last), nll in zip(rows, pairwise(bounds), nlls, strict=True):
            row.take(chosen[first:last], ends)
            row.nll, row.nll_tokens = nll, len(row.draft)

    def _write_on(
        self, unfinished: list[Left], slots: Sequence[int] | None, ends: frozenset[int], writer: Writer
    ) -> None:
        """What is left of the answers, by the model's own attention with its cache. Empties the list."""
        if not unfinished:
            return
        model, bank, left = self.base.model, self.base.bank, Left.joined(unfinished)
        unfinished.clear()
        decoder = decoder_of(model, writer, ends, self._router(slots))
        model.set_attn_implementation("sdpa")
        was_training = model.training
        model.eval()  # with activation checkpointing, a model in training takes no cache
        try:
            with bank.routed(None):
                decoder.write_on(left.rows, left.cache, left.seen)
        finally:
            model.train(was_training)
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
