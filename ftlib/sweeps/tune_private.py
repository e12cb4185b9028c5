"""What Ray Tune and Ray Train have no public name for, all of it here; read at Ray 2.60.

Each class turns private names of Ray's into a public name of ours: a property that is read, or a method that Ray calls
and a subclass answers. `tests/sweeps/test_tune_private.py` asks for each of Ray's names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.air.execution.resources.placement_group import PlacementGroupResourceManager
from ray.air.execution.resources.request import AcquiredResources, ResourceRequest
from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from ftlib.errors import FtlibError

CONTROLLER = "TuneController"


class OpenController(TuneController):
    """Tune's controller, whose decisions a subclass takes part in."""

    def may_begin(self) -> bool:
        """Whether trials may begin now. Tune asks at each step."""
        return True

    def failure_of(self, trial: Trial, exception: Exception) -> Exception | None:
        """The failure that Tune hears of in place of `exception`; None where the trial has ended on purpose."""
        return exception

    def has_actors(self) -> bool:
        """Whether trials are actors of their own, which Tune kills when they do not end."""
        return True

    def sleep(self, seconds: float) -> None:
        """Has Tune wait so long for its next event, in place of a tenth of a second. An event ends the wait."""
        theirs = self._actor_manager.next
        self._actor_manager.next = lambda timeout=None: theirs(timeout=seconds)

    def fail(self, trial: Trial, exception: Exception) -> None:
        """Has Tune treat a trial as failed; it starts again if its failures allow it."""
        super()._process_trial_failure(trial, exception)

    @property
    def num_live_actors(self) -> int:
        """How many trials hold resources."""
        return int(self._actor_manager.num_live_actors)

    @property
    def staging_path(self) -> Path:
        """The folder into which Tune writes its state before it uploads it."""
        return Path(self._storage.experiment_driver_staging_path)

    def _process_trial_failure(self, trial: Trial, exception: Exception) -> None:
        failure = self.failure_of(trial, exception)
        if failure is not None:
            self.fail(trial, failure)

    def _maybe_update_trial_queue(self) -> None:
        if self.may_begin():
            super()._maybe_update_trial_queue()

    def _maybe_add_actors(self) -> None:
        if self.may_begin():
            super()._maybe_add_actors()

    def _cleanup_stopping_actors(self, force_all: bool = False) -> None:
        if self.has_actors():
            super()._cleanup_stopping_actors(force_all)

    def _cleanup_trials(self) -> None:
        with suppress(ValueError):  # Tune looks for an actor's process where there is none
            super()._cleanup_trials()


@contextmanager
def controlled_by(controller: type[OpenController], **attributes: Any) -> Iterator[None]:
    """Within, `Tuner.fit` runs on a controller of this class with these attributes.

    `Tuner` makes a controller by the name `ray.tune.tune.TuneController`. Raises FtlibError in a version of Ray that
    has no such name.
    """
    if not hasattr(tune, CONTROLLER):
        raise FtlibError(f"Ray {ray.__version__} conducts trials in another way than ftlib knows: install ray 2.60.")
    theirs = getattr(tune, CONTROLLER)
    setattr(tune, CONTROLLER, type(CONTROLLER, (controller,), attributes))
    try:
        yield
    finally:
        setattr(tune, CONTROLLER, theirs)


class OpenPopulation(PopulationBasedTraining):
    """Tune's population, whose meetings can be moved and whose copies are announced."""

    _next_perturbation_sync: float

    def will_copy(self, taker: Trial, donor: Trial) -> None:
        """Called before `taker` goes on from the checkpoint of `donor`."""

    def has_waited(self, trial: Trial) -> bool:
        """Whether a trial has trained since the last meeting and waits for the next."""
        state = self._trial_state[trial]
        return bool(state.last_perturbation_time < state.last_train_time)

    def last_result(self, trial: Trial) -> dict[str, Any]:
        """The last that this trial reported."""
        result: dict[str, Any] = self._trial_state[trial].last_result
        return result

    def move_meeting_past(self, trials: list[Trial]) -> None:
        """Moves the next meeting to a time that none of `trials` has reached."""
        reached = max(self._trial_state[trial].last_train_time for trial in trials)
        if self._next_perturbation_sync <= reached:
            self._next_perturbation_sync = reached + self._perturbation_interval

    def _exploit(self, tune_controller: Any, trial: Trial, trial_to_clone: Trial) -> None:
        self.will_copy(trial, trial_to_clone)
        super()._exploit(tune_controller, trial, trial_to_clone)


class OpenPlacementGroups(PlacementGroupResourceManager):
    """Tune's placement groups, counted."""

    @property
    def asked_for(self) -> int:
        """Placement groups that are asked for or in use."""
        return len(self._pg_to_request)

    def is_waiting(self, request: ResourceRequest) -> bool:
        """Whether a placement group of this request is asked for and not there yet."""
        return bool(self._request_to_staged_pgs[request])


class OpenResources(AcquiredResources):
    """Resources that a subclass makes actors of, all at once, so that Tune asks for no single one."""

    def _annotate_remote_entity(self, entity: Any, bundle: dict[str, float], bundle_index: int) -> Any:
        raise NotImplementedError


def without_cleaner(trainer: type[Any]) -> type[Any]:
    """A trainer of Ray Train without Train's own cleaner of placement groups.

    Where no dashboard runs, the cleaner finds nothing out, outlives its trial and stays: a process for each stopped
    trial. `callback.py` does that work.
    """

    class Job(trainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [callback for callback in callbacks if "Cleaner" not in type(callback).__name__]

    return Job
