"""Odds-ratio preference optimization, as TRL's ORPOTrainer computes it: SFT on the chosen text, prompt included, and
the odds ratio of the mean log-probabilities of both answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftlib.methods.pack_losses.base import Objective, Scored, Split, Tokens
from ftlib.methods.pack_losses.dpo import rewards
from ftlib.methods.table import Table, mean


class ORPO(Objective):
    """Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`; all chosen sequences come before all rejected ones."""

    adapter_dropout = False

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = [self.row(split, number) for number in rows]
        whole = [[*row["prompt_ids"], *row["chosen_ids"]] for row in found]
        chosen = [Tokens.of(ids, np.ones(len(ids), dtype=bool)) for ids in whole]
        return chosen + [Tokens.answer(row["prompt_ids"], row["rejected_ids"]) for row in found]

    def columns(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        """Each [pairs]: the NLL of the chosen text summed over its tokens, how many those are, and the mean
        log-probabilities of the chosen and of the rejected answer."""
        count, log_probs = len(rows), scored.log_probs
        prompts = [len(self.row(split, number)["prompt_ids"]) for number in rows]
        sizes = scored.counts.tolist()
        answers = np.concatenate(
            [np.arange(size) >= prompt - 1 for prompt, size in zip(prompts, sizes, strict=False)]
            + [np.ones(size, dtype=bool) for size in sizes[count:]]
        )
        counted = torch.from_numpy(answers).to(log_probs.device)
        sums = scored.sums(torch.where(counted, log_probs, 0.0))
        chosen, rejected = (sums / scored.sums(counted.to(log_probs.dtype))).chunk(2)
        nll, tokens = -scored.sums()[:count], scored.counts[:count]
        return {"nll": nll, "tokens": tokens, "chosen": chosen, "rejected": rejected}

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        return loss(self.columns(scored, split, rows), self.method.beta)

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        return self.columns(scored, split, rows)

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, self.method.beta)


def loss(columns: Table, beta: float) -> Tensor:
    """A mean over the chosen texts' tokens, and one over the pairs."""
    return columns["nll"].sum() / columns["tokens"].sum() - beta * logsigmoid(_log_odds(columns)).mean()


def summary(table: Table, beta: float) -> dict[str, float]:
    """The loss and its parts, by TRL's names."""
    log_odds = _log_odds(table)
    ratio = logsigmoid(log_odds)
    return {
        "loss": float(loss(table, beta)),
        "nll_loss": mean(table["nll"], table["tokens"]),
        "log_odds_ratio": mean(ratio),
        "log_odds_chosen": mean(log_odds),
        **rewards(beta * table["chosen"], beta * table["rejected"]),
        "logps/chosen": mean(table["chosen"]),
        "logps/rejected": mean(table["rejected"]),
    }


def _log_odds(columns: Table) -> Tensor:
    chosen, rejected = columns["chosen"], columns["rejected"]
    return (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) of negative x, as TRL computes it (Mächler 2012)."""
    t = -torch.abs(x)
    return torch.where(t < -0.6931472, torch.log1p(-torch.exp(t)), torch.log(-torch.expm1(t)))


def make(experiment: Any, data: Any, base: Any) -> ORPO:
    """The objective of an ORPO trial."""
    return ORPO(experiment, data)
