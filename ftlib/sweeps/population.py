"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846) as Tune has it, with two gaps closed.

A trial's Tune checkpoint is a name: whose checkpoint in the run directory it stands for. The donor trains on while its
taker's process starts, so the donor's position is put aside for the taker when it is given.

With `synch`, Tune sets the next meeting to a time that all may have reached already (a resumed sweep, a trial that ran
ahead), and nobody calls those together who wait for a trial that has ended since: everybody would wait for ever.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial

from ftlib.run.directory import Run
from ftlib.sweeps.tune_private import OpenPopulation
from ftlib.training.recorder import put_aside


class Population(OpenPopulation):
    """`run` is the controller's to set: the directory in which the trials' checkpoints are."""

    run: Run

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Tune's choice; where all wait for each other, they meet first."""
        chosen = super().choose_trial_to_run(tune_controller)
        waiting = tune_controller.get_live_trials()
        if chosen is None and waiting and all(trial.status == Trial.PAUSED for trial in waiting):
            self._meet(tune_controller, list(waiting))
            chosen = super().choose_trial_to_run(tune_controller)
        return chosen

    def _meet(self, tune_controller: Any, waiting: list[Trial]) -> None:
        left = next((trial for trial in waiting if self.has_waited(trial)), None)
        if left is not None:  # the trial that they waited for has ended
            self.on_trial_result(tune_controller, left, self.last_result(left))
        self.move_meeting_past(waiting)

    def will_copy(self, taker: Trial, donor: Trial) -> None:
        """Puts the donor's position aside for the taker."""
        ours, theirs = self.run.trial(str(taker)), self.run.trial(str(donor))
        if not put_aside(theirs, ours):
            self.run.log_event("position_not_kept", trial=ours.id, donor=theirs.id)
