"""A score: what each row's answer is worth, and the number of all of them, or of any sample of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftlib.config.evaluation import Better

Floats = NDArray[np.float64]
Formula = Callable[[Floats], Floats]  # sums [samples, parts] -> numbers [samples]


def share_of_sums(sums: Floats) -> Floats:
    """The first part over the second: the mean of values, or errors for each word. NaN where there is nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = sums[:, 0] / sums[:, 1]
    return ratio


@dataclass(frozen=True, eq=False)
class Score:
    """What a metric says of the answers to a task.

    A metric's number is a formula of sums over rows (its sufficient statistics): of the values and their count for a
    mean, of matched and written n-grams for BLEU. So the number of a sample of the rows costs one sum.
    """

    name: str
    better: Better
    rows: Floats  # [rows]: what a person is shown of each row; NaN where it has no value
    sums: Floats  # [rows, parts]: what is added up; zeros where a row has no value
    formula: Formula = share_of_sums
    is_share: bool = False  # rows are 0 or 1, and the number is their mean
    warning: str | None = None  # one sentence: what could not be scored, and why
    details: Mapping[str, float] = field(default_factory=dict)  # further numbers by name

    def number(self, rows: NDArray[np.int64] | None = None) -> float:
        """The metric of all rows, or of those with these indexes, repeats included. NaN where no row has a value."""
        sums = self.sums if rows is None else self.sums[rows]
        return float(self.formula(sums.sum(axis=0, keepdims=True))[0])

    @property
    def valued(self) -> NDArray[np.bool_]:
        """Which rows have a value, [rows]."""
        return ~np.isnan(self.rows)

    @property
    def sign(self) -> int:
        """1 where a higher number is better, else -1."""
        return 1 if self.better == "max" else -1


def mean_of(metric: Any, values: Sequence[float], *, is_share: bool = False, **others: Any) -> Score:
    """The score whose number is the mean of the rows' values. Rows of NaN do not count."""
    rows = np.asarray(values, dtype=np.float64)
    valued = ~np.isnan(rows)
    sums = np.column_stack([np.where(valued, rows, 0.0), valued.astype(np.float64)])
    return Score(metric.name, metric.better, rows, sums, is_share=is_share, **others)


def share_of(metric: Any, right: Sequence[bool], **others: Any) -> Score:
    """The score whose number is the share of right rows."""
    return mean_of(metric, [float(row) for row in right], is_share=True, **others)
