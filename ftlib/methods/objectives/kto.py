"""Kahneman-Tversky optimization, as TRL 1.16's KTOTrainer computes it.

The divergence from the reference is estimated on mismatched answers: each prompt with the answer of its neighbour in
the data, in groups of the training batch's size. Nothing is learned from those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ftlib.methods.objectives.base import Objective, Row, Scored, Split, Tokens


class KTO(Objective):
    """Rows of `prompt_ids`, `completion_ids` and `label`; the mismatched sequences come after the rows' own."""

    adapter_dropout = False
    shuffles = False  # TRL's order: the mismatches are those of the data's

    def __init__(self, experiment: Any, data: Any, reference: Callable[[Split], Tensor]) -> None:
        super().__init__(experiment, data)
        self.reference = reference  # of a split: [rows, 2], log p_ref of a row's answer and of the mismatched one
        self.group = experiment.train.per_device_train_batch_size
        self.mismatches = self.method.loss_type == "kto"

    @property
    def variant(self) -> tuple[Any, ...]:
        return (self.group, self.mismatches)

    def _neighbour(self, split: Split, number: int) -> Row:
        rows = len(self.data.train if split == "train" else self.data.eval)
        start = number // self.group * self.group
        last = min(start + self.group, rows) - 1
        return self.row(split, number - 1 if number > start else last)

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = [self.row(split, number) for number in rows]
        own = [Tokens.answer(row["prompt_ids"], row["completion_ids"]) for row in found]
        if not self.mismatches:
            return own
        others = [self._neighbour(split, number)["completion_ids"] for number in rows]
        return own + [Tokens.answer(row["prompt_ids"], other) for row, other in zip(found, others, strict=True)]

    def _ratios(self, scored: Scored, split: Split, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """[rows] log-ratios, [rows] whether the answer is good, and the divergence."""
        sums, reference = scored.sums(), self.reference(split)[list(rows)].to(scored.logits.device)
        good = torch.tensor([self.row(split, number)["label"] for number in rows], device=sums.device)
        count = len(rows)
        ratios = sums[:count] - reference[:, 0]
        if not self.mismatches:
            return ratios, good, ratios.new_zeros(())
        return ratios, good, (sums[count:].detach() - reference[:, 1]).mean().clamp(min=0)

    def _losses(self, ratios: Tensor, good: Tensor, kl: Tensor) -> Tensor:
        method = self.method
        desirable = 1 - torch.sigmoid(method.beta * (ratios - kl))
        undesirable = 1 - torch.sigmoid(method.beta * (kl - ratios))
        return torch.where(good, method.desirable_weight * desirable, method.undesirable_weight * undesirable)

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        return self._losses(*self._ratios(scored, split, rows)).mean()

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> dict[str, float]:
        ratios, good, kl = self._ratios(scored, split, rows)
        found = {"loss": float(self._losses(ratios, good, kl).mean()), "kl": float(kl)}
        for name, which in (("chosen", good), ("rejected", ~good)):
            if which.any():
                found[f"rewards/{name}"] = float(self.method.beta * ratios[which].mean())
        if "rewards/chosen" in found and "rewards/rejected" in found:
            found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
        return found

    def finish(self, evaluations: list[dict[str, float]], rows: list[int]) -> dict[str, float]:
        """Batches may have good answers only, or bad ones only."""
        names = sorted({name for each in evaluations for name in each} - {"loss"})
        filled = [{"loss": each["loss"]} for each in evaluations]
        found = super().finish(filled, rows)
        for name in names:
            values = [each[name] for each in evaluations if name in each]
            found[f"eval_{name}"] = sum(values) / len(values)
        return found


def make(experiment: Any, data: Any, base: Any) -> KTO:
    """The objective of a KTO trial. The mismatches, and so the reference, depend on the batch size."""
    plain = KTO(experiment, data, lambda split: torch.empty(0))

    def reference(split: Split) -> Tensor:
        rows = range(len(data.train if split == "train" else data.eval))
        kind, width = f"judged-{plain.group}-{plain.mismatches}", 2 if plain.mismatches else 1
        return base.reference(split, kind, lambda some: plain.tokens(split, some), rows, width)

    return KTO(experiment, data, reference)
