"""Whether another trial is worth its price: what it may still gain, against what the evaluation rows can tell apart.

Two ways to know what a trial may gain.

`gain`: from the best values so far. Where values come as draws from one distribution, the spacings at its upper end,
each times its rank, are draws from one exponential distribution (Rényi 1953), whatever the distribution is, as long as
its tail is light. Their mean s says what one more trial gains: s / (n + 1) after n trials, and r more gain
s * ln((n + r) / n). A searcher that learns gains more at first, and then less.

`regret_bound`: Optuna's terminator (Makarova et al. 2022, arXiv:2104.08166). A Gaussian process over the points bounds
how far the best found is from the best there is.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence

import optuna
from optuna.terminator import RegretBoundEvaluator

TAIL = 0.3  # the share of the trials whose spacings are looked at
LEAST_SPACINGS = 4


def gain_of_another(scores: Sequence[float], more: int = 1) -> float:
    """What so many trials `more` gain over the best of `scores`, lower being better. In the unit of the scores.

    Scores that are not finite count as trials without a chance.
    """
    finite = sorted(score for score in scores if math.isfinite(score))
    count = min(len(finite) - 1, max(LEAST_SPACINGS, round(TAIL * len(finite))))
    if count < 1:
        return math.inf
    spacings = [rank * (finite[rank] - finite[rank - 1]) for rank in range(1, count + 1)]
    return statistics.mean(spacings) * math.log((len(scores) + more) / len(scores))


def standard_error(parts: Sequence[Sequence[float]]) -> float:
    """The least difference from the best that the evaluation rows can tell: the standard errors of the differences
    between the best and those behind it, the middle one. `parts` are [trials][parts], best first; 0 where none is
    known."""
    best, *others = [list(row) for row in parts] or [[]]
    errors = []
    for other in others:
        differences = [theirs - mine for mine, theirs in zip(best, other, strict=False)]
        if len(differences) > 1 and all(map(math.isfinite, differences)):
            errors.append(statistics.stdev(differences) / math.sqrt(len(differences)))
    return statistics.quantiles(errors, n=2, method="inclusive")[0] if len(errors) > 1 else sum(errors)


def regret(study: optuna.Study) -> float:
    """Optuna's bound on how far the best trial of a study is from the best there is, in the unit of its values."""
    with warnings.catch_warnings():  # the terminator is experimental
        warnings.simplefilter("ignore")
        evaluator = RegretBoundEvaluator(min_n_trials=2, seed=0)
        return float(evaluator.evaluate(study.get_trials(deepcopy=False), study.direction))


__all__ = ["gain_of_another", "regret", "standard_error"]
