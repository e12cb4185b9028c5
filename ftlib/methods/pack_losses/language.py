"""SFT and pretraining: cross-entropy of the labelled tokens, each weighing the same over the whole step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ftlib.data.tokenize import IGNORED
from ftlib.methods.pack_losses.base import Objective, Scored, Split, Tokens
from ftlib.methods.table import Table, mean


class Language(Objective):
    """Rows of `input_ids` and `labels`."""

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = (self.row(split, number) for number in rows)
        return [Tokens.of(row["input_ids"], np.asarray(row["labels"]) != IGNORED) for row in found]

    def items(self, rows: Sequence[int], picked: int) -> int:
        return picked

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        return -scored.log_probs.sum() / max(len(scored.targets) if items is None else items, 1)

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        log_probs = scored.logits.float().log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        right = (scored.logits.argmax(-1) == scored.targets).to(entropy.dtype)
        sums = {"nll": -scored.log_probs, "entropy": entropy, "right": right}
        return {"tokens": scored.counts, **{name: scored.sums(values) for name, values in sums.items()}}

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table)


def summary(table: Table) -> dict[str, float]:
    """Means over the labelled tokens, of a row's sums `nll`, `entropy` and `right`, and its number of `tokens`."""
    tokens = table["tokens"]
    return {
        "loss": mean(table["nll"], tokens),
        "entropy": mean(table["entropy"], tokens),
        "mean_token_accuracy": mean(table["right"], tokens),
    }


def make(experiment: Any, data: Any, base: Any) -> Language:
    """The objective of an SFT or pretraining trial."""
    return Language(experiment, data)
