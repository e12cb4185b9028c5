"""The rows of one trial's batch, computed by several threads side by side: each takes a share of them.

The products of one small batch keep one core busy and a second one hardly: of SmolLM2 a step of 8 rows uses 1.3 of two
cores where each product is divided. Two halves of the rows, a core each, share nothing but the weights. What rows begin
with alike is computed once a share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

LEAST = 2  # rows of a share: with one, nothing that rows begin with is computed once
Found = TypeVar("Found")


class RowShares:
    """`threads` of them, each with one thread of its own for its products."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._grads: list[Tensor] = []

    def of(self, rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """The rows in shares of like many tokens; one share where they are few. Within a share they keep their
        order."""
        count = min(self.threads, len(rows) // LEAST)
        if count < 2:
            return [list(rows)]
        shares: list[list[int]] = [[] for _ in range(count)]
        tokens = [0] * count
        for place in sorted(range(len(rows)), key=lambda place: -lengths[place]):
            least = min(range(count), key=lambda share: (tokens[share], share))
            shares[least].append(place)
            tokens[least] += lengths[place]
        return [[rows[place] for place in sorted(share)] for share in shares]

    def tables(self, like: Tensor, count: int) -> list[Tensor]:
        """So many tables of zeros like this one, for the gradients of the shares but the first."""
        if len(self._grads) < count or (count and self._grads[0].shape != like.shape):
            self._grads = [torch.zeros_like(like) for _ in range(count)]
        return self._grads[:count]

    def together(self, tasks: Sequence[Callable[[], Found]]) -> list[Found]:
        """What the tasks return, in their order. Raises what the first of them raises, when all are done."""
        if len(tasks) == 1 or self.threads == 1:
            return [task() for task in tasks]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, "rows", initializer=torch.set_num_threads, initargs=(1,))
        futures = [self._pool.submit(task) for task in tasks]
        for future in futures:
            future.exception()  # a thread that still adds gradients must not outlive a step that failed
        return [future.result() for future in futures]
