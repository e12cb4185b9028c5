"""What is chance: intervals of numbers, models compared on the same rows, trials that tie, voters that agree."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ftlib.evaluation.resampling import Groups, Units
from ftlib.evaluation.score import Floats, Score
from ftlib.evaluation.spread import alike, least_p, spread

CONFIDENCE = 0.99  # that the trials called tied hold all that are in truth the best
LOOKED_AT = 50  # trials, the best ones


@dataclass(frozen=True)
class Interval:
    """Where the number of all such rows lies, at the level that was asked for."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows. `difference` is positive where ours is better, whichever way is better."""

    difference: float
    low: float | None  # of the difference's interval; None where there are too few units for one
    high: float | None
    p: float  # of no difference, two-sided
    units: int
    test: str  # mcnemar or bootstrap

    def same_within(self, margin: float) -> bool:
        """Whether ours is worse than theirs by less than `margin` (non-inferiority): the whole interval is above
        -margin."""
        return self.low is not None and self.low > -margin


def interval(score: Score, groups: Groups | None = None, level: float = 0.95, seed: int = 0) -> Interval | None:
    """The interval of a score's number; None for a single unit, and for few units that are all alike.

    Wilson's (1927) for a share whose rows are the units. Else the bootstrap over units, and the jackknife for fewer
    than 8 (`spread`). `groups` has for each row what its unit shares, or None.
    """
    units = Units.of([score], groups)
    if units.count == 0:
        return None
    number, without_one = float(units.numbers[0]), units.without_one[0]
    if score.is_share and (not units.grouped or alike(without_one)):
        return wilson(number * units.count, units.count, level)
    ends = spread(number, without_one, lambda: units.resampled(seed)[0]).interval(level)
    if ends is None or not score.is_share:
        return None if ends is None else Interval(*ends)
    return Interval(max(ends[0], 0.0), min(ends[1], 1.0))


def compare(ours: Score, theirs: Score, groups: Groups | None = None, seed: int = 0) -> Comparison:
    """Ours against theirs, on the rows of which both have a value.

    McNemar's exact test (1947) for shares whose rows are the units, with the interval of Bonett and Price (2012). Else
    the paired bootstrap over units (for BLEU, Koehn 2004), and the jackknife for fewer than 8 (`spread`). One unit, and
    models that are alike in each, have p 1.
    """
    units = Units.of([ours, theirs], groups)
    if units.count == 0:
        return Comparison(math.nan, None, None, 1.0, 0, "bootstrap")
    is_share = ours.is_share and theirs.is_share
    if is_share and not units.grouped:
        gained = ours.sign * (units.sums[0][:, 0] - units.sums[1][:, 0])
        return _mcnemar(int((gained > 0).sum()), int((gained < 0).sum()), units.count)
    difference = float(_lead(ours, units.numbers))
    without_one = _lead(ours, units.without_one)
    found = spread(difference, without_one, lambda: _lead(ours, units.resampled(seed)))
    ends: tuple[float | None, float | None] = found.interval(0.95) or (None, None)
    if is_share and units.count > 1 and alike(without_one):  # no chance at all is more than few groups can say
        ends = _bonett_price(max(difference, 0) * units.count, max(-difference, 0) * units.count, units.count)
    return Comparison(difference, ends[0], ends[1], found.p, units.count, "bootstrap")


def _lead(ours: Score, numbers: Floats) -> Floats:
    """How much better the first of two is."""
    lead: Floats = ours.sign * (numbers[0] - numbers[1])
    return lead


def _mcnemar(gained: int, lost: int, rows: int) -> Comparison:
    """Rows that only ours gets right, and rows that only theirs does: by chance, each is one or the other."""
    from scipy.special import bdtr

    p = min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0
    return Comparison((gained - lost) / rows, *_bonett_price(gained, lost, rows), p, rows, "mcnemar")


def _bonett_price(gained: float, lost: float, rows: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a difference of paired shares: Wald's, with one more row gained and one more lost."""
    total = rows + 2
    more, less = (gained + 1) / total, (lost + 1) / total
    half = _z(level) * math.sqrt((more + less - (more - less) ** 2) / total)
    return max(more - less - half, -1.0), min(more - less + half, 1.0)


def wilson(right: float, rows: int, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927) of a share. `right` need not be whole: a tie is half a win."""
    z2 = _z(level) ** 2
    center, total = right + z2 / 2, rows + z2
    half = math.sqrt(z2 * (right * (rows - right) / rows + z2 / 4)) if rows else z2 / 2
    low, high = (center - half) / total, (center + half) / total
    return Interval(0.0 if right <= 0 else low, 1.0 if right >= rows else high)  # exact at the ends


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def win_rate(wins: int, losses: int, ties: int = 0) -> tuple[float, Interval]:
    """The share of wins, a tie being half of one, and Wilson's interval. NaN, and 0 to 1, for no votes."""
    votes = wins + losses + ties
    right = wins + ties / 2
    return right / votes if votes else math.nan, wilson(right, votes)


def kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Cohen's kappa (1960) of two voters on the same cases: 1 is full agreement, 0 is what chance gives. NaN without
    votes, and where both always say the same word: chance agrees as well."""
    votes = list(zip(a, b, strict=True))
    if not votes:
        return math.nan
    agreed = sum(one == other for one, other in votes) / len(votes)
    by_chance = sum(list(a).count(word) * list(b).count(word) for word in set(a)) / len(votes) ** 2
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan


def ties(scores: Mapping[str, Score], groups: Groups | None = None, seed: int = 0) -> list[str]:
    """The trials that cannot be told apart from the best, the best first.

    This is the model confidence set (Hansen, Lunde and Nason 2011, Econometrica 79:2): the worst trial is taken out as
    long as the largest difference of two trials is more than chance gives the largest of so many. So neither the
    number of trials nor the luck of the one that came out best makes a lead. Trials that are equally good in truth are
    called a tie in about 99 of 100 sweeps. Of more than 50 trials the best 50 are looked at.
    """
    numbers = {name: score.sign * score.number() for name, score in scores.items()}
    ranked = sorted((name for name in scores if not math.isnan(numbers[name])), key=lambda name: -numbers[name])
    looked_at = [scores[name] for name in ranked[:LOOKED_AT]]
    units = Units.of(looked_at, groups) if len(looked_at) > 1 else None
    if units is None or units.count < 2:
        return ranked[:LOOKED_AT]
    return [ranked[number] for number in _confidence_set(units, seed)]


def _confidence_set(units: Units, seed: int) -> list[int]:
    """The indexes of scores that are left, in their order, which is from the best to the worst."""
    from scipy.special import ndtri, stdtrit

    sign, level = units.scores[0].sign, (1 + CONFIDENCE) / 2
    values, drawn = sign * units.numbers, sign * units.resampled(seed)
    drawn = np.nan_to_num(drawn - np.nanmean(drawn, axis=1, keepdims=True), nan=0.0)
    errors = _errors(drawn, units)
    lead = _over(values[:, None] - values, _cautious(errors, units), least_p(units.count) < 1 - CONFIDENCE)
    one, other = np.triu_indices(len(values), 1)
    by_chance = np.abs(_over((drawn[one] - drawn[other]).T, errors[one, other], False)).T.astype(np.float32)
    widening = float(stdtrit(units.count - 1, level) / ndtri(level))
    left = np.ones(len(values), dtype=bool)
    while left.sum() > 1:
        largest = by_chance[left[one] & left[other]].max(axis=0)
        behind = np.where(left, lead[left].max(axis=0), -math.inf)  # how clearly each is beaten
        if behind.max() <= widening * np.quantile(largest, CONFIDENCE):
            break
        left[int(behind.argmax())] = False
    return [int(index) for index in np.flatnonzero(left)]


def _errors(drawn: Floats, units: Units) -> Floats:
    """The standard error of the difference of each two scores."""
    covariance = np.cov(drawn)
    own = np.diag(covariance)
    variance = (own[:, None] + own - 2 * covariance) * units.count / (units.count - 1)
    variance[variance < 1e-12 * own.max()] = 0.0  # rounding
    return np.sqrt(variance)


def _cautious(errors: Floats, units: Units) -> Floats:
    """Of shares, with one more unit gained and one more lost, as Bonett and Price have it: few rows on which two differ
    say less than their spread does."""
    return np.sqrt(errors**2 + 2 / units.count**2) if all(score.is_share for score in units.scores) else errors


def _over(differences: Floats, errors: Floats, certain: bool) -> Floats:
    """Differences in standard errors. Where all units differ by the same there is no error: that is `certain`, or it
    says nothing."""
    found = np.divide(differences, errors, out=np.zeros_like(differences), where=errors > 0)
    return np.where((errors == 0) & (differences > 0), math.inf, found) if certain else found
