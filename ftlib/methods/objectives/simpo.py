"""Simple preference optimization, as TRL's CPOTrainer computes it: the mean log-probabilities of both answers, and no
reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftlib.methods.objectives.base import Objective, Scored, Split, Tokens
from ftlib.methods.objectives.dpo import rewards


class SimPO(Objective):
    """Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`; all chosen sequences come before all rejected ones."""

    adapter_dropout = False

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = [self.row(split, number) for number in rows]
        return [Tokens.answer(row["prompt_ids"], row[name]) for name in ("chosen_ids", "rejected_ids") for row in found]

    def _means(self, scored: Scored) -> tuple[Tensor, Tensor]:
        """[pairs], [pairs]: the mean log-probabilities of the chosen and of the rejected answers' tokens."""
        chosen, rejected = (scored.sums() / scored.counts).chunk(2)
        return chosen, rejected

    def _nll(self, scored: Scored) -> Tensor:
        """[]: of the chosen answers, a mean over the batch's tokens; 0 where it has no part in the loss."""
        if not self.method.cpo_alpha:
            return torch.zeros((), device=scored.log_probs.device)
        return -scored.log_probs[scored.owners < scored.sequences // 2].mean()

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        method = self.method
        chosen, rejected = self._means(scored)
        scaled = method.beta * (chosen - rejected) - method.simpo_gamma
        smoothing = method.label_smoothing
        losses = -logsigmoid(scaled) * (1 - smoothing) - logsigmoid(-scaled) * smoothing
        return losses.mean() + method.cpo_alpha * self._nll(scored)

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> dict[str, float]:
        chosen, rejected = self._means(scored)
        found = {"loss": float(self.loss(scored, split, rows, None)), "nll_loss": float(self._nll(scored))}
        return found | rewards(self.method.beta * chosen, self.method.beta * rejected)


def make(experiment: Any, data: Any, base: Any) -> SimPO:
    """The objective of a SimPO trial."""
    return SimPO(experiment, data)
