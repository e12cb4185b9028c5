"""Optuna's pruners as a scheduler of Ray Tune's: whoever proposes the points, a pruner sees the same trials.

The pruner has a study of its own, in memory, in which a trial's steps are its checks. So a pruner also goes with a grid
or with random search, and with a study that other sweeps share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler


class Pruning(FIFOScheduler):
    """At each of `marks`, counted in the result's `clock`, a trial is stopped that `pruner` would prune."""

    def __init__(self, clock: str, marks: Sequence[int], pruner: optuna.pruners.BasePruner) -> None:
        super().__init__()
        self.clock, self.marks, self.pruner = clock, marks, pruner
        self.asked: dict[str, optuna.Trial] = {}
        self.reached: dict[str, int] = {}  # each trial's last check

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Tune calls it with the metric that is compared."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        direction = "maximize" if mode == "max" else "minimize"
        sampler = optuna.samplers.RandomSampler(seed=0)
        self.study = optuna.create_study(direction=direction, pruner=self.pruner, sampler=sampler)
        return bool(super().set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Takes over the last result of a trial that a resumed sweep brings back."""
        self.asked[trial.trial_id] = self.study.ask()
        self._arrives(trial, trial.last_result or {})

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """Stops the trial where the pruner says so."""
        stops = self._arrives(trial, result) and self.asked[trial.trial_id].should_prune()
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> None:
        """Some pruners compare with trials that have come to their end."""
        value = (result or {}).get(self.metric, math.nan)
        state = optuna.trial.TrialState.COMPLETE if math.isfinite(value) else optuna.trial.TrialState.FAIL
        told = value if math.isfinite(value) else None
        self.study.tell(self.asked[trial.trial_id], told, state=state, skip_if_finished=True)

    def _arrives(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        """Notes the result where it is the trial's first at or past a check."""
        check = sum(result.get(self.clock, 0) >= mark for mark in self.marks)
        if not math.isfinite(result.get(self.metric, math.nan)) or check <= self.reached.get(trial.trial_id, 0):
            return False
        self.reached[trial.trial_id] = check
        self.asked[trial.trial_id].report(result[self.metric], check)
        return True


__all__ = ["Pruning"]
