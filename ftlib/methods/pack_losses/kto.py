"""Kahneman-Tversky optimization, as TRL 1.16's KTOTrainer computes it.

The divergence from the reference is estimated on mismatched answers: each prompt with the answer of its neighbour in
the data, in groups of the training batch's size. Nothing is learned from those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ftlib.methods.pack_losses.base import Objective, Row, Scored, Split, Tokens
from ftlib.methods.table import Table, mean
from ftlib.models.to_device import sent


class KTO(Objective):
    """Rows of `prompt_ids`, `completion_ids` and `label`; the mismatched sequences come after the rows' own."""

    adapter_dropout = False
    shuffles = False  # TRL's order: the mismatches are those of the data's

    def __init__(self, experiment: Any, data: Any, references: Any) -> None:
        super().__init__(experiment, data)
        self.references = references  # what the base says: log p_ref of a row's answer, and of the mismatched one
        self.group = experiment.train.per_device_train_batch_size
        self.mismatches = self.method.loss_type == "kto"

    @property
    def variant(self) -> tuple[Any, ...]:
        return (self.group, self.mismatches)

    def _neighbour(self, split: Split, number: int) -> Row:
        """In training the mismatches are made within a batch; of evaluation rows over all, whatever the batch size."""
        rows = len(self.data.train if split == "train" else self.data.eval)
        group = self.group if split == "train" else rows
        start = number // group * group
        last = min(start + group, rows) - 1
        return self.row(split, number - 1 if number > start else last)

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = [self.row(split, number) for number in rows]
        own = [Tokens.answer(row["prompt_ids"], row["completion_ids"]) for row in found]
        if not self.mismatches:
            return own
        others = [self._neighbour(split, number)["completion_ids"] for number in rows]
        return own + [Tokens.answer(row["prompt_ids"], other) for row, other in zip(found, others, strict=True)]

    def columns(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        """What a batch's rows say, each [rows]: log-ratios to the reference of their own answers and of the mismatched
        ones, and whether they are good."""
        group = self.group if split == "train" else "all"  # in training the mismatches depend on the batch size
        kind = f"judged-{group}-{self.mismatches}"
        known = self.references.of(split, kind, lambda some: self.tokens(split, some), rows, self.soon(split))
        sums, reference = scored.sums(), sent(known, scored.owners.device)
        good = sent(torch.tensor([self.row(split, number)["label"] for number in rows]), sums.device)
        count = len(rows)
        found = {"good": good, "policy": sums[:count], "reference": reference[:, 0]}
        return found | ({"mismatched": sums[count:].detach() - reference[:, 1]} if self.mismatches else {})

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        return losses(self.columns(scored, split, rows), self.method)[0].mean()

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        return self.columns(scored, split, rows)

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, self.method)


def losses(columns: Table, method: Any) -> tuple[Tensor, Tensor]:
    """[rows] losses, and the divergence, which is one for all rows that are given together."""
    ratios = columns["policy"] - columns["reference"]
    kl = columns["mismatched"].mean().clamp(min=0) if "mismatched" in columns else ratios.new_zeros(())
    desirable = 1 - torch.sigmoid(method.beta * (ratios - kl))
    undesirable = 1 - torch.sigmoid(method.beta * (kl - ratios))
    good = columns["good"].bool()
    return torch.where(good, method.desirable_weight * desirable, method.undesirable_weight * undesirable), kl


def summary(table: Table, method: Any) -> dict[str, float]:
    """The loss, with the divergence estimated on all rows, and the rewards by TRL's names.

    `rewards/accuracies` is not TRL's: of each good answer beside each bad one, how often the good one has the higher
    reward (the area under the ROC curve; 0.5 is chance). No key of the method scales it.
    """
    loss, kl = losses(table, method)
    ratios, good = table["policy"] - table["reference"], table["good"].bool()
    found = {"loss": mean(loss), "kl": float(kl)}
    for name, which in (("chosen", good), ("rejected", ~good)):
        if which.any():
            found[f"rewards/{name}"] = mean(method.beta * ratios[which])
            found[f"logps/{name}"] = mean(table["policy"][which])
    if good.any() and not good.all():
        found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
        found["rewards/accuracies"] = _area(ratios[good], ratios[~good])
    return found


def _area(good: Tensor, bad: Tensor) -> float:
    """The share of pairs in which the good one is higher; ties are half (Mann and Whitney 1947), by ranks."""
    bad = bad.sort().values
    below, not_above = torch.searchsorted(bad, good), torch.searchsorted(bad, good, right=True)
    return float((below + not_above).double().mean()) / (2 * len(bad))


def make(experiment: Any, data: Any, base: Any) -> KTO:
    """The objective of a KTO trial."""
    return KTO(experiment, data, base.references)
