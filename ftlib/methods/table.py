"""An evaluation as a table: a line for each row of the data, a column for each thing that a row says.

The numbers of an evaluation are computed once, of the whole table. So they do not depend on how the rows were put into
batches, on padding, or on how many workers shared them: TRL and transformers give means of batches' means, which do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Table = dict[str, Tensor]  # name -> [rows]
PARTS = 16
PARTS_OF = "_parts"  # the end of the key under which a metric's parts are


def on_cpu(table: Table) -> Table:
    """A batch's part of the table, where sums lose nothing."""
    return {name: column.detach().double().cpu() for name, column in table.items()}


def joined(parts: Sequence[Table]) -> Table:
    """One table of several, line after line."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def in_order(table: Table, rows: Iterable[int]) -> Table:
    """The table with its lines in the order of the data: line n is that of row `rows[n]` now."""
    order = torch.tensor(list(rows)).argsort()
    return {name: column[order] for name, column in table.items()}


def mean(values: Tensor, weights: Tensor | None = None) -> float:
    """The mean of `values`, one a row; with `weights`, `values` are a row's sums over so many items (its tokens)."""
    total = float(len(values) if weights is None else weights.sum())
    return float(values.sum()) / total if total else math.nan


def in_parts(table: Table, number: Callable[[Table], float]) -> list[float]:
    """`number` of each n-th row, for at most `PARTS` parts: what tells whether two trials, evaluated on the same rows,
    differ by more than chance (`asha`)."""
    rows = len(next(iter(table.values())))
    parts = min(PARTS, rows)
    return [number({name: column[part::parts] for name, column in table.items()}) for part in range(parts)]


def numbers_of(table: Table, summary: Callable[[Table], dict[str, float]], metric: str | None) -> dict[str, Any]:
    """An evaluation's row from its table: every number of `summary` under `eval_`, and `metric`'s parts."""
    found: dict[str, Any] = {f"eval_{name}": value for name, value in summary(table).items()}
    if metric in found:
        name = str(metric).removeprefix("eval_")
        found[f"{metric}{PARTS_OF}"] = in_parts(table, lambda part: summary(part).get(name, math.nan))
    return found
