"""What a person asks of a running sweep, done to Tune's controller: trials stopped, taken up again, cloned, boosted,
added.

A running trial of one worker is not cut off: it saves where it stands and leaves its slot or process, and then is
stopped, or goes on with other values. What was done to a trial stands in its `lineage.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import TrialScheduler

from ftlib.config import Experiment, GridSearch, RatioOf
from ftlib.config.comparable import why_not_compared
from ftlib.config.packs import largest_rank, why_not_packed
from ftlib.errors import FtlibError, InputError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.run.commands import Command, done, waiting
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import LINEAGE, POINT
from ftlib.training.recorder import copy_checkpoint

if TYPE_CHECKING:
    from ftlib.sweeps.controller import Controller

LENGTH = ("train.num_train_epochs", "train.max_steps")  # what a boost may change
SHAPE = ("adapter.", "model.", "data.", "method.")  # a clone with another of these begins anew


class Sparing:
    """A scheduler that stops every trial but those that a person has spoken for."""

    def __init__(self, scheduler: Any, spared: Callable[[str], bool]) -> None:
        self._scheduler, self._spared = scheduler, spared

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The scheduler's decision, but a spared trial continues. The scheduler does not see other spared trials."""
        decision: str = self._scheduler.on_trial_result(_Unspared(controller, self._spared), trial, result)
        stops = decision == TrialScheduler.STOP and self._spared(str(trial))
        return TrialScheduler.CONTINUE if stops else decision


class _Unspared:
    """The controller as the scheduler sees it, without the spared trials. `asha` can stop a trial at the result of
    another one."""

    def __init__(self, controller: Any, spared: Callable[[str], bool]) -> None:
        self._controller, self._spared = controller, spared

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)

    def get_live_trials(self) -> list[Any]:
        return [trial for trial in self._controller.get_live_trials() if not self._spared(str(trial))]


class Steering:
    """Takes commands up, between two steps of the controller (`controller.Controller`, which imports this)."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.run: Run = controller.conductor.run
        self.experiment: Experiment = controller.conductor.setting.experiment()
        self.leaving: dict[str, Callable[[Any], None]] = {}  # trials on their way out, and what is done then
        self.too_late: dict[str, Callable[[], None]] = {}  # what is done where they end before they hear of it

    def take_up(self) -> None:
        """Does the commands that are waiting. The answer to a command that cannot be done says why."""
        self._see_who_ended()
        for name, command in waiting(self.run):
            try:
                sentence = getattr(self, f"_{command.do}")(command)
            except Exception as error:  # a command that cannot be done must not end the sweep
                known = isinstance(error, FtlibError)
                done(self.run, name, command, False, str(error) if known else f"{type(error).__name__}: {error}")
            else:
                done(self.run, name, command, True, sentence)

    def has_left(self, trial: Any) -> bool:
        """Whether a trial that was interrupted was asked to: then what it was asked for is done."""
        act = self.leaving.pop(str(trial), None)
        self.too_late.pop(str(trial), None)
        if act is not None:
            self.run.log_event("trial_moved", trial=str(trial))
            act(trial)
        return act is not None

    def end_all(self, why: str) -> None:
        """Ends the sweep: nothing is proposed any more, what trains is stopped where it stands."""
        self.run.log_event("budget_over", why=why)
        self.controller.end_proposals()
        for live in self.controller.live():
            if not live.is_finished() and str(live) not in self.leaving:
                self.controller.conductor.live.ends[str(live)] = why
                self._when_it_has_left(live, self.controller.stop_trial)

    def _stop(self, command: Command) -> str:
        ours, live = self._trial(command), self._live(command.trial)
        if live is None:
            raise InputError(f"trial {ours.id} is {ours.state} already.")
        self.controller.conductor.live.ends[ours.id] = "by hand"
        self._when_it_has_left(live, self.controller.stop_trial)
        return f"trial {ours.id} is being stopped; 'ftlib trial resume {self.run.path} {ours.id}' goes on with it"

    def _resume(self, command: Command) -> str:
        ours = self._trial(command)
        if ours.state != "stopped":
            raise InputError(f"trial {ours.id} is {ours.state}: only a stopped trial can be taken up again.")
        self._again(ours, self._point(ours), spared=True)
        return f"trial {ours.id} goes on; the scheduler stops it no more"

    def _boost(self, command: Command) -> str:
        ours, live = self._trial(command), self._live(command.trial)
        other = sorted(set(command.changes) - set(LENGTH))
        if other:
            raise InputError(
                f"{other[0]}: a boost makes a trial longer ({', '.join(LENGTH)}); clone it to change others."
            )
        if live is None and ours.state not in ("stopped", "finished"):
            raise InputError(f"trial {ours.id} is {ours.state}: boost one that trains, or that was stopped.")
        point = {**self._point(ours), **command.changes}
        self._check(point)
        if live is None:
            self._again(ours, point, spared=True)
        elif command.changes:
            again = partial(self._again, ours, point, spared=True)
            self._when_it_has_left(live, lambda trial: self.controller.go_on_with(trial, point), again)
        self._note(ours, spared=True, changed=command.changes)
        longer = "".join(f", with {path} = {value}" for path, value in command.changes.items())
        return f"trial {ours.id} is trained to its end{longer}"

    def _clone(self, command: Command) -> str:
        donor = self._trial(command)
        warm = donor.checkpoint is not None and not any(path.startswith(SHAPE) for path in command.changes)
        ours = self._enroll(donor, command.changes, warm, cloned_from=donor.id)
        return (
            f"trial {ours.id} is {donor.id}"
            + (" from where it stands" if warm else " from the beginning")
            + "".join(f", {path} = {value}" for path, value in command.changes.items())
        )

    def _replicate(self, command: Command) -> str:
        """The same settings from the beginning, with another seed: how much of a lead is chance. No scheduler stops
        it."""
        donor = self._trial(command)
        ours = self._enroll(donor, command.changes, False, replica_of=donor.id, spared=True)
        return f"trial {ours.id} is {donor.id} with seed {command.changes['train.seed']}"

    def _enroll(self, donor: Trial, changes: dict[str, Any], warm: bool, **lineage: Any) -> Trial:
        """A new trial at a donor's point with changes; `warm`: from the donor's position."""
        experiment, values = self.experiment, {**donor.params, **changes}
        point = {**self._point(donor), **changes}
        for path, dimension in (experiment.sweep.space if experiment.sweep else {}).items():
            if isinstance(dimension, RatioOf) and path in changes:
                point[path] = changes[path] / values.get(dimension.ratio_of, 1)
        self._check(point)
        ours = self.run.new_trial()
        if warm:
            copy_checkpoint(donor, ours)
        self._note(ours, **lineage, changed=changes, warm=warm)
        write_json(ours.path / POINT, point)
        self.controller.enroll(ours.id, point)
        self.run.log_event("trials_added", count=1, trial=ours.id, cloned_from=donor.id, changed=changes)
        return ours

    def _add(self, command: Command) -> str:
        if not self.controller.has_searcher or self.experiment.sweep is None:
            raise InputError("a population has the size that it began with: use another sweep.scheduler.")
        if isinstance(self.experiment.sweep.search, GridSearch):
            raise InputError("a grid has all its points: clone a trial, or use search: {type: optuna}.")
        self.controller.propose_more(command.count)
        self.run.log_event("trials_added", count=command.count)
        return f"{command.count} trials more"

    # --- how ----------------------------------------------------------------------------------------------------

    def _trial(self, command: Command) -> Trial:
        ours = self.run.trial(command.trial or "")
        if not ours.path.is_dir():
            raise InputError(f"{self.run.path} has no trial '{command.trial}'.")
        return ours

    def _live(self, name: str | None) -> Any:
        live = [trial for trial in self.controller.live() if str(trial) == name and not trial.is_finished()]
        return live[0] if live else None

    def _point(self, trial: Trial) -> dict[str, Any]:
        point: dict[str, Any] = read_json(trial.path / POINT) or {}
        return point

    def _check(self, point: dict[str, Any]) -> None:
        """Raises ConfigError or InputError for a point that cannot be trained, or not beside the others."""
        at = self.experiment.at(self.experiment.resolve_ratios(point))
        swept = [leaf.name for leaf in self.experiment.sweep.leaves] if self.experiment.sweep else []
        for path in sorted(set(point) - set(swept)):
            if why := why_not_compared(self.experiment, path):
                raise InputError(f"{path}: {why}.")
        if self.controller.conductor.hosts is None:
            return
        reason = why_not_packed(at)
        if reason is None and largest_rank(at) > largest_rank(self.experiment):
            reason = f"adapter.r {largest_rank(at)} is larger than the pack's slots, {largest_rank(self.experiment)}"
        if reason is not None:
            raise InputError(f"this trial cannot join the pack: {reason}.")

    def _when_it_has_left(
        self, live: Any, act: Callable[[Any], None], too_late: Callable[[], None] | None = None
    ) -> None:
        spread = self.experiment.scale.strategy != "single"  # its workers would have to agree on a step: it is cut off
        if live.status != "RUNNING" or spread:
            act(live)
            return
        self.leaving[str(live)] = act
        if too_late is not None:
            self.too_late[str(live)] = too_late
        self.controller.conductor.live.ask_to_leave(live, "asked for by hand")

    def _see_who_ended(self) -> None:
        """A trial may come to its end, or be stopped by the scheduler, before it hears that it should leave."""
        for name in [name for name in self.leaving if self._live(name) is None]:
            del self.leaving[name]
            act = self.too_late.pop(name, None)
            if act is not None and self.run.trial(name).state in ("stopped", "finished"):
                act()

    def _again(self, ours: Trial, point: dict[str, Any], spared: bool) -> None:
        """Starts a trial that has ended again, from its checkpoint."""
        ours.set_state("pending")
        self._note(ours, spared=spared)
        write_json(ours.path / POINT, point)
        self.controller.enroll(ours.id, point)

    @staticmethod
    def _note(trial: Trial, **what: Any) -> None:
        before = trial.lineage
        if before.get("changed") and "changed" in what:
            what["changed"] = {**before["changed"], **what["changed"]}
        write_json(trial.path / LINEAGE, {**before, **what})


def spared(run: Run) -> Callable[[str], bool]:
    """Whether a person has asked to keep a trial, so that no scheduler stops it."""
    return lambda name: bool(run.trial(name).lineage.get("spared"))
