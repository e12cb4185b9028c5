"""Rows of a table as rows of another, forward and backward with the same bits whatever else is in the tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

Bags = tuple[Tensor, Tensor]  # which rows a row is the sum of, row after row; and where each row's begin and end


class Gather:
    """Each row of the result is one row of a table of `rows`, or zeros where `index` is `rows`.

    One row may be taken several times; then its gradient is the sum of theirs, in their order: no result depends on
    what runs beside it.
    """

    def __init__(self, index: np.ndarray, rows: int, device: torch.device) -> None:
        real = index < rows
        taken = index[real]
        self._there = _bags(taken, real, device)
        takers = np.argsort(index, kind="stable")[: len(taken)]
        self._back = _bags(takers, np.bincount(taken, minlength=rows), device)

    def __call__(self, table: Tensor) -> Tensor:
        """[rows, ...] to [len(index), ...]."""
        taken: Tensor = _Gathered.apply(table, self._there, self._back)
        return taken

    def inverse(self) -> Gather:
        """From the result to the table, where each row is taken once at most."""
        turned = Gather.__new__(Gather)
        turned._there, turned._back = self._back, self._there
        return turned


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, there: Bags, back: Bags) -> Tensor:
        ctx.back = back
        return _sums(table, there)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return _sums(dy, ctx.back), None, None


def _bags(rows: np.ndarray, counts: np.ndarray, device: torch.device) -> Bags:
    bounds = np.concatenate([[0], np.cumsum(counts)])
    return torch.from_numpy(rows).to(device), torch.from_numpy(bounds).to(device)


def _sums(table: Tensor, bags: Bags) -> Tensor:
    """Of each bag, the sum of its rows; zeros of an empty one."""
    rows, bounds = bags
    found = embedding_bag(rows, table.flatten(1), bounds, mode="sum", include_last_offset=True)
    return found.view(-1, *table.shape[1:])
