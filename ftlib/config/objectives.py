"""What trials are judged by: the metrics of `sweep.metric`, and the bounds of `sweep.constraints`.

Besides the numbers of an evaluation there are measures, which no evaluation gives: how large a trial's adapter is, how
long it takes for an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ftlib.errors import nearest

if TYPE_CHECKING:
    from ftlib.config.experiment import Experiment

Better = Literal["min", "max"]
MEASURES: dict[str, Better] = {"trainable_parameters": "min", "latency_ms": "min", "seconds": "min"}
BOUND = re.compile(r"^\s*(>=|<=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*$")


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric: `>= 0.5`."""

    metric: str
    least: bool  # whether the bound is the least value, or the largest
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.least else '<='} {self.bound:g}"

    @classmethod
    def of(cls, metric: str, text: str) -> Constraint:
        """Raises ValueError for a text that is no bound."""
        found = BOUND.match(text)
        if found is None:
            raise ValueError(f"constraints.{metric} is '{text}', but must be a bound such as '>= 0.5' or '<= 200'")
        return cls(metric, found[1] == ">=", float(found[2]))

    def violation(self, value: float) -> float:
        """How far a value is beyond the bound: at most 0 where it keeps it."""
        return self.bound - value if self.least else value - self.bound


def constraints(told: Mapping[str, str]) -> list[Constraint]:
    """`sweep.constraints` as bounds."""
    return [Constraint.of(metric, text) for metric, text in told.items()]


def objectives(experiment: Experiment) -> list[tuple[str, Better]]:
    """Each metric that trials are compared by, and which way is better; the first is the one whose best weights a trial
    keeps."""
    if not experiment.data.held_out:
        return [("train_loss", "min")]
    named = experiment.sweep.metrics if experiment.sweep is not None else []
    known = _known(experiment)
    return [(name, known[name]) for name in named] or [experiment.method.metric]


def judged_by(experiment: Experiment) -> tuple[str, ...]:
    """The metrics beside the first: of further objectives, and of constraints."""
    bounds = experiment.sweep.constraints if experiment.sweep is not None else {}
    first, *others = [name for name, _ in objectives(experiment)]
    return tuple(dict.fromkeys(name for name in (*others, *bounds) if name != first))


def is_timed(experiment: Experiment) -> bool:
    """Whether trials measure how long they take for an answer."""
    sweep = experiment.sweep
    return sweep is not None and "latency_ms" in (*sweep.metrics, *sweep.constraints)


def why_not_judged(experiment: Experiment) -> str | None:
    """Why trials cannot be judged by what the sweep names besides its first metric, as a sentence; None where they
    can."""
    sweep = experiment.sweep
    if sweep is None or not (sweep.constraints or len(sweep.metrics) > 1):
        return None
    if sweep.metrics and sweep.metrics[0] in MEASURES:
        return (
            f"sweep.metric begins with '{sweep.metrics[0]}', but a trial keeps the weights that are best by the first "
            "metric: name one of an evaluation first"
        )
    known = _known(experiment)
    for key, names in (("metric", sweep.metrics), ("constraints", list(sweep.constraints))):
        for name in names:
            if name not in known:
                return f"sweep.{key} names '{name}', but there is: {', '.join(known)}.{nearest(name, known)}"
    if is_timed(experiment) and not any(name in experiment.evaluation.metrics for name in _named(experiment)):
        return "latency_ms is how long a trial takes for an answer, and trials write none: name a metric of a task too"
    return None


def _named(experiment: Experiment) -> tuple[str, ...]:
    sweep = experiment.sweep
    return (*sweep.metrics, *sweep.constraints) if sweep is not None else ()


def _known(experiment: Experiment) -> dict[str, Better]:
    return {**experiment.method.metrics, **experiment.evaluation.metrics, **MEASURES}


__all__ = ["MEASURES", "Constraint", "constraints", "is_timed", "judged_by", "objectives", "why_not_judged"]
