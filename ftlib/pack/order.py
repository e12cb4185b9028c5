"""Which rows a trial sees when: the order of transformers' Trainer (with accelerate's seedable sampler), and its steps.

A step is a function of its number alone, so a trial that goes on, in whichever process, finds its place by counting.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from ftlib.config.train import TrainSection


class Order:
    """Steps, epochs and batches of one trial over `rows` training rows."""

    def __init__(self, rows: int, train: TrainSection, shuffles: bool = True) -> None:
        self.rows, self.seed, self.shuffles = rows, train.seed, shuffles
        self.size, self.accumulated = train.per_device_train_batch_size, train.gradient_accumulation_steps
        self.batches_an_epoch = math.ceil(rows / self.size)
        self.steps_an_epoch = max(1, math.ceil(self.batches_an_epoch / self.accumulated))
        self.steps = train.max_steps or math.ceil(train.num_train_epochs * self.steps_an_epoch)

    def batches(self, step: int) -> list[list[int]]:
        """The rows of each batch that step `step` (from 0) accumulates; fewer batches, or rows, at an epoch's end."""
        epoch, within = divmod(step, self.steps_an_epoch)
        order = _permutation(self.rows, self.seed + epoch) if self.shuffles else range(self.rows)
        first = within * self.accumulated
        last = min(first + self.accumulated, self.batches_an_epoch)
        return [list(order[number * self.size : (number + 1) * self.size]) for number in range(first, last)]

    def met(self) -> list[int]:
        """The rows that a step has, in the order of the data."""
        if self.steps >= self.steps_an_epoch:
            return list(range(self.rows))
        return sorted({row for step in range(self.steps) for batch in self.batches(step) for row in batch})

    def epoch(self, step: int) -> float:
        """How many times the data was seen after `step` steps."""
        epochs, within = divmod(step, self.steps_an_epoch)
        return epochs + min(within * self.accumulated, self.batches_an_epoch) / self.batches_an_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether step number `step` (counted from 1) is an epoch's last."""
        return step % self.steps_an_epoch == 0


@lru_cache(maxsize=64)
def _permutation(rows: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    permutation: list[int] = torch.randperm(rows, generator=generator).tolist()
    return permutation
