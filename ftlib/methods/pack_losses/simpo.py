"""Simple preference optimization, as TRL's CPOTrainer computes it: the mean log-probabilities of both answers, and no
reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from ftlib.methods.pack_losses.base import Objective, Scored, Split, Tokens
from ftlib.methods.pack_losses.dpo import rewards
from ftlib.methods.table import Table, mean


class SimPO(Objective):
    """Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`; all chosen sequences come before all rejected ones."""

    adapter_dropout = False

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = [self.row(split, number) for number in rows]
        return [Tokens.answer(row["prompt_ids"], row[name]) for name in ("chosen_ids", "rejected_ids") for row in found]

    def columns(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        """Each [pairs]: the NLL of the chosen answer summed over its tokens, how many those are, and the mean
        log-probabilities of both answers' tokens."""
        sums, counts = scored.sums(), scored.counts
        chosen, rejected = (sums / counts).chunk(2)
        return {"nll": -sums[: len(rows)], "tokens": counts[: len(rows)], "chosen": chosen, "rejected": rejected}

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        return loss(self.columns(scored, split, rows), self.method)

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        return self.columns(scored, split, rows)

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, self.method)


def loss(columns: Table, method: Any) -> Tensor:
    """A mean over the pairs, and `cpo_alpha` of one over the chosen answers' tokens."""
    scaled = method.beta * (columns["chosen"] - columns["rejected"]) - method.simpo_gamma
    smoothing = method.label_smoothing
    losses = -logsigmoid(scaled) * (1 - smoothing) - logsigmoid(-scaled) * smoothing
    return losses.mean() + method.cpo_alpha * columns["nll"].sum() / columns["tokens"].sum()


def summary(table: Table, method: Any) -> dict[str, float]:
    """The loss and its parts, by TRL's names."""
    return {
        "loss": float(loss(table, method)),
        "nll_loss": mean(table["nll"], table["tokens"]),
        **rewards(method.beta * table["chosen"], method.beta * table["rejected"]),
        "logps/chosen": mean(table["chosen"]),
        "logps/rejected": mean(table["rejected"]),
    }


def make(experiment: Any, data: Any, base: Any) -> SimPO:
    """The objective of a SimPO trial."""
    return SimPO(experiment, data)
