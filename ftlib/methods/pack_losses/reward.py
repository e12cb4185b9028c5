"""Reward models from pairs (Bradley-Terry), as TRL's RewardTrainer computes them: a number for a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftlib.methods.pack_losses.base import Objective, Scored, Split, Tokens, place_of_text
from ftlib.methods.table import Table, mean


class Reward(Objective):
    """Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`. The head, of one output, is the trial's own."""

    adapter_dropout = False

    def __init__(self, experiment: Any, data: Any, base: Any) -> None:
        super().__init__(experiment, data)
        self.pad_token_id, self.reads_first = base.pad_token_id, base.is_encoder
        self.centre = self.method.center_rewards_coefficient or 0.0

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = [self.row(split, number) for number in rows]
        whole = [row["prompt_ids"] + row[name] for name in ("chosen_ids", "rejected_ids") for row in found]
        return [self._read(np.asarray(ids, dtype=np.int64)) for ids in whole]

    def _read(self, ids: np.ndarray) -> Tokens:
        place = 0 if self.reads_first else place_of_text(ids, self.pad_token_id)
        return Tokens(ids, np.array([place]), np.zeros(1, dtype=np.int64))

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        return losses(self.evaluate(scored, split, rows), self.centre).mean()

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        chosen, rejected = scored.logits.float().squeeze(-1).chunk(2)
        return {"chosen": chosen, "rejected": rejected}

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, self.centre)


def losses(table: Table, centre: float) -> Tensor:
    """[pairs]: of the scores of both answers, which `centre` holds around 0."""
    chosen, rejected = table["chosen"], table["rejected"]
    return centre * (chosen + rejected).square() - logsigmoid(chosen - rejected)


def summary(table: Table, centre: float) -> dict[str, float]:
    """The numbers of an evaluation, by TRL's names."""
    chosen, rejected = table["chosen"], table["rejected"]
    both = torch.cat([chosen, rejected])
    return {
        "loss": mean(losses(table, centre)),
        "accuracy": mean((chosen > rejected).double()),
        "margin": mean(chosen - rejected),
        "mean_reward": mean(both),
        "min_reward": float(both.min()),
        "max_reward": float(both.max()),
    }


def make(experiment: Any, data: Any, base: Any) -> Reward:
    """The objective of a reward model."""
    return Reward(experiment, data, base)
