"""How a number spreads by chance: its interval, and the p of its being 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ftlib.evaluation.score import Floats

FEW = 8  # units: with fewer, resamples are too much alike
Ends = tuple[float, float]


@dataclass(frozen=True)
class Jackknifed:
    """By the jackknife and Student's t (Tukey 1958): for few units, where that is wide."""

    number: float
    without_one: Floats  # the number without each of the units

    @property
    def units(self) -> int:
        return len(self.without_one)

    def interval(self, level: float) -> Ends | None:
        """None for one unit, and for few that are all alike: they say nothing of others."""
        if self.units < 2 or (self.units < FEW and self._error == 0):
            return None
        from scipy.special import stdtrit

        half = float(stdtrit(self.units - 1, (1 + level) / 2)) * self._error
        return self.number - half, self.number + half

    @property
    def p(self) -> float:
        """Two-sided. No less than what the signs of the units alone could say."""
        if self.number == 0 or self.units < 2:
            return 1.0
        from scipy.special import stdtr

        t = abs(self.number) / self._error if self._error else math.inf
        return max(float(2 * stdtr(self.units - 1, -t)), least_p(self.units))

    @property
    def _error(self) -> float:
        """The standard error."""
        if alike(self.without_one):
            return 0.0
        return math.sqrt((self.units - 1) * float(self.without_one.var()))


@dataclass(frozen=True)
class Bootstrapped:
    """By resamples. The interval is BCa (Efron 1987), which corrects for bias and skewness, with Hesterberg's expanded
    quantiles (2015, The American Statistician 69:4): n units spread less than what they are drawn from. `p` is the
    level at which that interval ends at 0."""

    drawn: Floats  # the number of each resample, sorted
    bias: float  # Efron's z0
    skewness: float  # Efron's a
    units: int

    @classmethod
    def of(cls, number: float, without_one: Floats, drawn: Floats) -> Bootstrapped:
        """`without_one`: the number without each of the units."""
        drawn = np.sort(drawn[np.isfinite(drawn)])
        away = without_one.mean() - without_one
        skewness = float((away**3).sum() / (6 * (away**2).sum() ** 1.5))
        return cls(drawn, _normal_below(drawn, number), skewness, len(without_one))

    def interval(self, level: float) -> Ends:
        """Its ends are numbers of resamples."""
        from scipy.special import stdtrit

        wide = self._widening * float(stdtrit(self.units - 1, (1 + level) / 2))
        low, high = (self._share(z) * len(self.drawn) for z in (-wide, wide))
        return float(self.drawn[min(int(low), len(self.drawn) - 1)]), float(self.drawn[max(math.ceil(high) - 1, 0)])

    @property
    def p(self) -> float:
        """Two-sided. No less than what the signs of the units alone could say."""
        from scipy.special import stdtr

        moved = _normal_below(self.drawn, 0.0) - self.bias
        z = moved / (1 + self.skewness * moved) - self.bias
        return max(float(2 * stdtr(self.units - 1, -abs(z) / self._widening)), least_p(self.units))

    @property
    def _widening(self) -> float:
        return math.sqrt(self.units / (self.units - 1))

    def _share(self, z: float) -> float:
        """The share of resamples below BCa's quantile z."""
        moved = self.bias + z
        return NormalDist().cdf(self.bias + moved / max(1 - self.skewness * moved, 1e-9))


def spread(number: float, without_one: Floats, draw: Callable[[], Floats]) -> Jackknifed | Bootstrapped:
    """By resamples, which `draw` gives, where there are units enough for them, and these differ."""
    if len(without_one) < FEW or alike(without_one):
        return Jackknifed(number, without_one)
    return Bootstrapped.of(number, without_one, draw())


def alike(without_one: Floats) -> bool:
    """Whether it makes no difference which unit is left out, but for rounding."""
    return bool(np.ptp(without_one) <= 1e-12 * np.abs(without_one).max())


def least_p(units: int) -> float:
    """The least p of a test of paired units: all have one sign, by chance."""
    return 2.0 ** min(1 - units, 0)


def _normal_below(drawn: Floats, number: float) -> float:
    """The normal quantile of the share of resamples below a number. Those on it count half."""
    share, least = float((drawn < number).mean() + (drawn == number).mean() / 2), 1 / (len(drawn) + 1)
    return NormalDist().inv_cdf(min(max(share, least), 1 - least))
