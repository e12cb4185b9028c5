"""The run's trials as a study of Optuna's, so that its plots and PED-ANOVA read them, whoever proposed the points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ftlib.report.words import last_parts
from ftlib.run.leaderboard import Leaderboard, Row


@dataclass(frozen=True)
class Points:
    """The ranked trials that have a value of each swept parameter, best first, and how the parameters are spread.

    Names are short where they can be: `learning_rate`, not `train.learning_rate`.
    """

    trials: list[Row]
    params: list[dict[str, Any]]  # of each trial
    distributions: dict[str, BaseDistribution]

    def study(self, direction: str, best: int | None = None) -> optuna.Study:
        """The best `best` trials (all, unless given), the worst first: what is drawn last lies on top."""
        with _quiet():
            study = optuna.create_study(direction=direction)
            chosen = list(zip(self.trials, self.params, strict=True))[:best]
            study.add_trials(
                optuna.trial.create_trial(params=params, distributions=self.distributions, value=row.value)
                for row, params in reversed(chosen)
            )
        return study

    def costs(self, direction: str, costs: list[float]) -> optuna.Study:
        """A study of two objectives: what each trial costs, to be small, and its value."""
        with _quiet():
            study = optuna.create_study(directions=["minimize", direction])
            study.add_trials(
                optuna.trial.create_trial(values=[cost, row.value], user_attrs={"trial": row.trial})
                for row, cost in zip(self.trials, costs, strict=True)
            )
        return study


def points_of(board: Leaderboard, space: dict[str, Any]) -> Points:
    """The points of a leaderboard; `space` is `sweep.space` of the experiment."""
    scored = [row for row in board.rows if row.rank is not None]
    paths = [path for path in board.parameters if all(path in row.params for row in scored)]  # variants differ in more
    ranked = scored
    names = last_parts(paths)
    distributions: dict[str, BaseDistribution] = {}
    params: list[dict[str, Any]] = [{} for _ in ranked]
    for path, name in names.items():
        values, distribution = _spread([row.params[path] for row in ranked], space.get(path))
        if distribution is not None:
            distributions[name] = distribution
            for of_trial, value in zip(params, values, strict=True):
                of_trial[name] = value
    return Points(ranked, params, distributions)


def _spread(values: list[Any], dimension: Any) -> tuple[list[Any], BaseDistribution | None]:
    """The values as Optuna takes them, and what they are spread over; None where all trials have the same value."""
    if len({repr(value) for value in values}) < 2:
        return values, None
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numbers or not all(map(math.isfinite, values)):
        texts = [str(value) for value in values]
        return texts, CategoricalDistribution(sorted(set(texts)))
    if not isinstance(dimension, dict) or "min" not in dimension:
        if all(float(value).is_integer() for value in values):
            values = [int(value) for value in values]  # a rank times a ratio is 8.0
        return values, CategoricalDistribution(sorted(set(values)))
    low, high = min(values), max(values)
    log = dimension.get("log") is True and low > 0
    if all(isinstance(value, int) for value in values):
        return values, IntDistribution(low, high, log=log)
    return values, FloatDistribution(low, high, log=log)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna announces each study that it makes."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
