"""Asynchronous successive halving (Li et al. 2018, arXiv:1810.05934), and a word for those who came first.

Who reaches a rung first has nobody to be compared with and goes on. In a pack that is most of a sweep: sixteen trials
reach a rung in one tick, and Tune hears of them one by one. So those who went on are called back when later ones push
them out of the rung's best.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler


class SuccessiveHalving(FIFOScheduler):
    """At each of `marks`, counted in the result's `clock`, the best 1/`reduction_factor` of those that came so far go
    on.

    `calls_back`: a trial can be stopped between its reports, so it is stopped as soon as it is not among the best of
    its last rung. What is let through by chance costs little then, and one more is kept: the best of few is often not
    the best in the end. On recorded curves that one more is a tenth of the sweeps (benchmarks/asha_replay.py).
    """

    def __init__(self, clock: str, marks: Sequence[int], reduction_factor: float, calls_back: bool) -> None:
        super().__init__()
        self.clock, self.marks, self.reduction_factor = clock, marks, reduction_factor
        self.calls_back = calls_back
        self.scores: list[dict[str, float]] = [{} for _ in marks]  # of each rung: trial to score, lower being better
        self.parts: list[dict[str, Sequence[float]]] = [{} for _ in marks]  # the same scores on parts of the rows
        self.reached: dict[str, int] = {}  # each trial's last rung

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Tune calls it with the metric that is compared."""
        self.sign = -1 if mode == "max" else 1
        return bool(super().set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Takes over the last results of trials that a resumed sweep brings back."""
        self._arrives(trial, trial.last_result or {})

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """Stops the trials that this result shows to be beaten."""
        if not self._arrives(trial, result):
            return str(TrialScheduler.CONTINUE)
        beaten = self._beaten(self.reached[trial.trial_id])
        if self.calls_back:
            for other in list(tune_controller.get_live_trials()):
                if other is not trial and other.status == Trial.RUNNING and other.trial_id in beaten:
                    tune_controller.stop_trial(other)
        return str(TrialScheduler.STOP if trial.trial_id in beaten else TrialScheduler.CONTINUE)

    def _arrives(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        """Notes the result where it is the trial's first at or past a rung."""
        rung = sum(result.get(self.clock, 0) >= mark for mark in self.marks) - 1
        if self.metric not in result or rung <= self.reached.get(trial.trial_id, -1):
            return False
        score = self.sign * result[self.metric]
        self.scores[rung][trial.trial_id] = score if math.isfinite(score) else math.inf
        self.reached[trial.trial_id] = rung
        self.parts[rung][trial.trial_id] = result.get(f"{self.metric}_parts", ())
        return True

    def _beaten(self, rung: int) -> set[str]:
        """Of those that have come no further than this rung, the ones that are not among its best, and that the
        evaluation rows can tell from the last of these."""
        scores = self.scores[rung]
        kept = math.ceil(len(scores) / self.reduction_factor) + self.calls_back
        order = sorted(scores, key=scores.__getitem__)
        last = order[min(kept, len(order)) - 1]
        others = [trial for trial in order[kept:] if self.reached[trial] == rung]
        return {trial for trial in others if self._is_worse(rung, trial, last)}

    def _is_worse(self, rung: int, trial: str, last: str) -> bool:
        """By more than the standard error of their difference over the parts of the rows, which are the same for
        both."""
        scores, parts = self.scores[rung], self.parts[rung]
        if math.isinf(scores[trial]):
            return True
        ours, theirs = parts[trial], parts[last]
        error = 0.0
        if len(ours) == len(theirs) > 1:
            differences = [mine - other for mine, other in zip(ours, theirs, strict=True)]
            error = statistics.stdev(differences) / math.sqrt(len(differences))
        return scores[trial] - scores[last] > (error if math.isfinite(error) else 0.0)


__all__ = ["SuccessiveHalving"]
