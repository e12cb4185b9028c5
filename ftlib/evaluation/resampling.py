"""The bootstrap over units (Efron 1979): how far numbers move when the rows are drawn again.

A unit is a row, or all rows of a group: these are drawn together, since they are not independent. A number is a formula
of sums over units, so a resample is a count for each unit, and a matrix product gives the sums of thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftlib.evaluation.score import Floats, Score

RESAMPLES = 5_000
CELLS = 2_000_000  # counts that are held at once
Groups = Sequence[str | None]


@dataclass(frozen=True)
class Units:
    """Scores of the same rows, added up by unit. Rows without a value in one of the scores are left out."""

    scores: Sequence[Score]
    sums: Sequence[Floats]  # of each score, [units, parts]
    count: int
    grouped: bool  # whether a unit has several rows

    @classmethod
    def of(cls, scores: Sequence[Score], groups: Groups | None) -> Units:
        """`groups` has a name for each row, or None for a row that is a unit of its own."""
        valued = np.logical_and.reduce([score.valued for score in scores])
        names = [None] * len(valued) if groups is None else groups
        keys = [row if name is None else str(name) for row, name in enumerate(names) if valued[row]]
        index: dict[int | str, int] = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        unit = np.array([index[key] for key in keys], dtype=np.int64)
        added = [_added(score.sums[valued], unit, len(index)) for score in scores]
        return cls(scores, added, len(index), len(index) < len(keys))

    @property
    def numbers(self) -> Floats:
        """Of all units, [scores]."""
        return self._numbers(lambda sums: sums.sum(axis=0, keepdims=True))[:, 0]

    @property
    def without_one(self) -> Floats:
        """The numbers without each of the units in turn (the jackknife), [scores, units]."""
        return self._numbers(lambda sums: sums.sum(axis=0) - sums)

    def resampled(self, seed: int) -> Floats:
        """The numbers of `RESAMPLES` resamples, the same ones for all scores, [scores, resamples]."""
        parts = [self._numbers(lambda sums, counts=counts: counts @ sums) for counts in _counts(self.count, seed)]  # type: ignore[misc]
        return np.concatenate(parts, axis=1)

    def _numbers(self, total: Callable[[Floats], Floats]) -> Floats:
        pairs = zip(self.scores, self.sums, strict=True)
        return np.stack([score.formula(total(sums)) for score, sums in pairs])


def _added(sums: Floats, unit: NDArray[np.int64], units: int) -> Floats:
    added = np.zeros((units, sums.shape[1]))
    np.add.at(added, unit, sums)
    return added


def _counts(units: int, seed: int) -> Iterator[Floats]:
    """How often each unit is in a resample, in parts of [resamples, units]."""
    generator, most = np.random.default_rng(seed), max(1, CELLS // units)
    for start in range(0, RESAMPLES, most):
        samples = min(most, RESAMPLES - start)
        drawn = generator.integers(units, size=(samples, units)) + units * np.arange(samples)[:, None]
        yield np.bincount(drawn.ravel(), minlength=samples * units).reshape(samples, units).astype(np.float64)
