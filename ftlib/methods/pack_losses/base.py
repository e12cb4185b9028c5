"""The words that objectives share: the tokens of a row, a batch's outputs, and what an objective is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ftlib.methods.table import Table, joined, numbers_of

Split = Literal["train", "eval"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Tokens:
    """One sequence. `picked`: the positions whose outputs the loss looks at; `targets`: the token that should follow
    each of them (of a classifier, whatever its objective takes for it)."""

    ids: np.ndarray
    picked: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[int], counted: np.ndarray) -> Tokens:
        """`counted[i]`: whether token i is to be predicted. The first has nothing to be predicted from."""
        tokens = np.asarray(ids, dtype=np.int64)
        places = np.flatnonzero(counted[1:])
        return cls(tokens, places, tokens[places + 1])

    @classmethod
    def answer(cls, prompt: Sequence[int], answer: Sequence[int]) -> Tokens:
        """A prompt and its answer, of which the answer is to be predicted."""
        counted = np.arange(len(prompt) + len(answer)) >= len(prompt)
        return cls.of([*prompt, *answer], counted)


def place_of_text(ids: np.ndarray, pad_token_id: int) -> int:
    """Where a decoder's head reads a text: at its last token that is no padding, as transformers finds it."""
    real = np.flatnonzero(ids != pad_token_id)
    return int(real[-1]) if len(real) else len(ids) - 1


@dataclass
class Scored:
    """A batch's outputs at its picked places, sequence after sequence. What an objective does not ask for is not
    made."""

    make_logits: Callable[[], Tensor]  # [P, vocabulary or classes]
    make_log_probs: Callable[[], Tensor]  # [P], of the targets
    targets: Tensor  # [P]
    owners: Tensor  # [P], the number of the sequence that a place belongs to
    sequences: int

    @cached_property
    def logits(self) -> Tensor:
        """The logits at the picked places: [P, vocabulary or classes]."""
        return self.make_logits()

    @cached_property
    def log_probs(self) -> Tensor:
        """The log-probabilities of the targets: [P]."""
        return self.make_log_probs()

    def sums(self, values: Tensor | None = None) -> Tensor:
        """[sequences]: the sum over each sequence's places, of the targets' log-probabilities by default."""
        values = self.log_probs if values is None else values
        return values.new_zeros(self.sequences).index_add(0, self.owners, values)

    @cached_property
    def counts(self) -> Tensor:
        """[sequences]: how many places each has."""
        ones = torch.ones_like(self.owners)  # not bincount: a device would be asked for the largest first
        return ones.new_zeros(self.sequences).index_add_(0, self.owners, ones)


class Objective:
    """What a trial minimizes. `rows` below are numbers of rows of a split, in the order of the batch."""

    shuffles = True  # whether training rows are met in a drawn order
    adapter_dropout = True  # TRL switches every dropout off, the adapter's too, where answers are compared

    def __init__(self, experiment: Any, data: Any) -> None:
        self.experiment, self.method, self.data = experiment, experiment.method, data
        self.table: Table | None = None  # the latest evaluation's
        self.meets: Sequence[int] = ()  # the training rows that the trial is going to meet, where that is known

    def soon(self, split: Split) -> Sequence[int]:
        """The rows that will be asked for: what is computed once of a row is computed of all of these together."""
        return self.meets if split == "train" else range(len(self.data.eval))

    def row(self, split: Split, number: int) -> Row:
        found: Row = (self.data.train if split == "train" else self.data.eval)[number]
        return found

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        """The sequences of some rows: of one row one after another, or all first ones before all second ones."""
        raise NotImplementedError

    @property
    def variant(self) -> tuple[Any, ...]:
        """What `tokens` depends on besides the rows: trials alike in it see the same tokens of the same rows."""
        return ()

    def items(self, rows: Sequence[int], picked: int) -> int | None:
        """What a batch counts for when several are accumulated, of its rows and its picked places; None: all the
        same."""
        return None

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        """The batch's part of the step's loss: a sum over `items` (those of the whole step), or a mean."""
        raise NotImplementedError

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        """An evaluation batch: what each of its rows says, a column a name."""
        raise NotImplementedError

    def summary(self, table: Table) -> dict[str, float]:
        """The numbers of an evaluation, without the prefix `eval_`, from the lines of all its rows."""
        raise NotImplementedError

    def finish(self, batches: Sequence[Table], metric: str | None = None) -> dict[str, Any]:
        """A whole evaluation from its batches, with the parts of `metric`."""
        self.table = joined(batches)
        return numbers_of(self.table, self.summary, metric)

    def facts(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """What the manifest says besides, of the weights that gave this evaluation."""
        return {}
