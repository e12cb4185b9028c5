"""Ends a sweep when another trial is not worth its price; `worth` has what trials may still gain."""

from __future__ import annotations

import math

import optuna

from ftlib.config import Experiment
from ftlib.evaluation.trial_ties import parts_of
from ftlib.run.cost import spent
from ftlib.run.directory import Run
from ftlib.run.leaderboard import Row, leaderboard
from ftlib.sweeps.worth import gain_of_another, regret, standard_error

HOPED = 0.5  # of what the rows can tell: on recorded sweeps a whole one loses the best in 15 of 100
COMPARED = 6  # trials behind the best whose difference from it says what the rows can tell


class Terminator:
    """`look` is asked between steps, and computes only after a trial has ended. It speaks once in a run: a person who
    adds trials afterwards gets them."""

    def __init__(self, run: Run, experiment: Experiment) -> None:
        self.run, self.experiment = run, experiment
        self.section = experiment.sweep.terminator if experiment.sweep is not None else None
        self.has_spoken = any(event["event"] == "terminated" for event in run.events())
        self.seen = 0

    def is_due(self, ended: int) -> bool:
        """Whether a trial has ended since the last look, and the terminator has still something to say."""
        return self.section is not None and not self.has_spoken and ended != self.seen

    def look(self, ended: int, left: int, study: optuna.Study) -> str | None:
        """Why no trial more is started, as a sentence; None where the `left` ones are worth it. `ended` counts the
        trials that have ended."""
        if not self.is_due(ended):
            return None
        self.seen = ended
        found = self._why(left, study)
        self.has_spoken = found is not None
        return found

    def _why(self, left: int, study: optuna.Study) -> str | None:
        assert self.section is not None
        rows = [
            row for row in leaderboard(self.run).rows if row.state in ("finished", "stopped") and not row.replica_of
        ]
        done = [row for row in rows if row.state == "finished"]
        if len(done) < self.section.min_trials:
            return None
        metric, mode = self.run.objective
        sign = 1 if mode == "min" else -1
        scores = [sign * row.value if row.value is not None else math.inf for row in done]
        scores += [math.inf] * (len(rows) - len(done))  # whom the scheduler has stopped had no chance
        if self.section.type == "regret_bound":
            gain, told = regret(study), f"the best is at most {{:.3g}} {metric} from the best there is"
        else:
            gain, told = gain_of_another(scores, left), f"the {left} that are left would gain about {{:.3g}} {metric}"
        limit, why = self._limit(done, left, metric)
        if not gain < limit:
            return None
        return f"no trial more is started after {len(rows)}: {told.format(gain)}, {why}"

    def _limit(self, done: list[Row], left: int, metric: str) -> tuple[float, str]:
        """What is worth it at least, and why."""
        assert self.section is not None
        if self.section.min_gain_per_cost is not None:
            scale = self.experiment.scale
            price = (spent(self.run, scale.num_workers, running=True).cost(scale) or 0.0) / len(done) * left
            least = self.section.min_gain_per_cost * price
            return least, f"and cost about {price:.3g}, which pays from {least:.3g} on (min_gain_per_cost)"
        if self.section.min_gain is not None:
            return self.section.min_gain, f"which is below min_gain, {self.section.min_gain:g}"
        best = done[: COMPARED + 1]
        parts = [parts_of(self.run.trial(row.trial), *self.run.objective) for row in best]
        error = standard_error([row for row in parts if row is not None])
        return HOPED * error, f"less than half of what the evaluation rows can tell apart, {error:.3g}"


__all__ = ["Terminator"]
