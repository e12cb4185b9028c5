"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846) as Tune has it, with two gaps closed.

A trial's Tune checkpoint is a name: whose checkpoint in the run directory it stands for. The donor trains on while its
taker's process starts, so the donor's position is put aside for the taker when it is given.

With `synch`, Tune sets the next meeting to a time that all may have reached already (a resumed sweep, a trial that ran
ahead), and nobody calls those together who wait for a trial that has ended since: everybody would wait for ever.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from ftlib.run.directory import Run
from ftlib.training.recorder import put_aside


class Population(PopulationBasedTraining):
    """`run` is the controller's to set: the directory in which the trials' checkpoints are."""

    run: Run
    _next_perturbation_sync: float

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Tune's choice; where all wait for each other, they meet first."""
        chosen = super().choose_trial_to_run(tune_controller)
        waiting = tune_controller.get_live_trials()
        if chosen is None and waiting and all(trial.status == Trial.PAUSED for trial in waiting):
            self._meet(tune_controller, list(waiting))
            chosen = super().choose_trial_to_run(tune_controller)
        return chosen

    def _meet(self, tune_controller: Any, waiting: list[Trial]) -> None:
        states = {trial: self._trial_state[trial] for trial in waiting}
        for trial, state in states.items():
            if state.last_perturbation_time < state.last_train_time:  # whom they waited for has ended
                self.on_trial_result(tune_controller, trial, state.last_result)
                break
        reached = max(state.last_train_time for state in states.values())
        if self._next_perturbation_sync <= reached:
            self._next_perturbation_sync = reached + self._perturbation_interval

    def _exploit(self, tune_controller: Any, trial: Trial, trial_to_clone: Trial) -> None:
        donor, taker = self.run.trial(str(trial_to_clone)), self.run.trial(str(trial))
        if not put_aside(donor, taker):
            self.run.log_event("position_not_kept", trial=taker.id, donor=donor.id)
        super()._exploit(tune_controller, trial, trial_to_clone)
