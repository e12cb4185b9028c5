"""Odds-ratio preference optimization, as TRL's ORPOTrainer computes it: SFT on the chosen text, prompt included, and the
odds ratio of the mean log-probabilities of both answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftlib.methods.objectives.base import Objective, Scored, Split, Tokens
from ftlib.methods.objectives.dpo import rewards


class ORPO(Objective):
    """Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`; all chosen sequences come before all rejected ones."""

    adapter_dropout = False

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = [self.row(split, number) for number in rows]
        whole = [[*row["prompt_ids"], *row["chosen_ids"]] for row in found]
        chosen = [Tokens.of(ids, np.ones(len(ids), dtype=bool)) for ids in whole]
        return chosen + [Tokens.answer(row["prompt_ids"], row["rejected_ids"]) for row in found]

    def _parts(self, scored: Scored, split: Split, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The NLL of the chosen texts, and the mean log-probabilities of the chosen and the rejected answers."""
        count, log_probs = len(rows), scored.log_probs
        prompts = [len(self.row(split, number)["prompt_ids"]) for number in rows]
        sizes = scored.counts.tolist()
        answers = np.concatenate(
            [np.arange(size) >= prompt - 1 for prompt, size in zip(prompts, sizes, strict=False)]
            + [np.ones(size, dtype=bool) for size in sizes[count:]]
        )
        counted = torch.from_numpy(answers).to(log_probs.device)
        sums = scored.sums(torch.where(counted, log_probs, 0.0))
        tokens = scored.sums(counted.to(log_probs.dtype))
        chosen, rejected = (sums / tokens).chunk(2)
        return -log_probs[scored.owners < count].mean(), chosen, rejected

    def _loss(self, nll: Tensor, chosen: Tensor, rejected: Tensor) -> Tensor:
        log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
        return nll - (self.method.beta * logsigmoid(log_odds)).mean()

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        return self._loss(*self._parts(scored, split, rows))

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> dict[str, float]:
        nll, chosen, rejected = self._parts(scored, split, rows)
        beta = self.method.beta
        found = {"loss": float(self._loss(nll, chosen, rejected)), "nll_loss": float(nll)}
        return found | rewards(beta * chosen, beta * rejected)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) of negative x, as TRL computes it (Mächler 2012)."""
    t = -torch.abs(x)
    return torch.where(t < -0.6931472, torch.log1p(-torch.exp(t)), torch.log(-torch.expm1(t)))


def make(experiment: Any, data: Any, base: Any) -> ORPO:
    """The objective of an ORPO trial."""
    return ORPO(experiment, data)
