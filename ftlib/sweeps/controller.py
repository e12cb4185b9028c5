"""Ray Tune's controller, with what it has no setting for: slots as resources, and what counts as a failure."""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchGenerator

from ftlib.errors import FtlibError
from ftlib.files.json_files import read_json
from ftlib.run.layout import POINT
from ftlib.sweeps.bounded import bounded
from ftlib.sweeps.conductor import Conductor
from ftlib.sweeps.pack_slots import Slots
from ftlib.sweeps.population import Population
from ftlib.sweeps.search import StudySearch
from ftlib.sweeps.snapshot import keep, lay_out
from ftlib.sweeps.solo_trial import preempted_error
from ftlib.sweeps.steering import Sparing, Steering, spared
from ftlib.sweeps.tune_private import OpenController, controlled_by

OURS = ("steering", "_next_snapshot", "_saved", "_ending")  # attributes that Tune's controller does not have
IDLE_SECONDS = 0.05
WAKE_SECONDS = 0.5  # between two looks at commands and machines, where no trial reports
SNAPSHOT_SHARE = 0.02  # of the driver's time


class Named:
    """Names one trial. Tune calls it with the trial."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, trial: Any) -> str:
        return self.name


class Controller(OpenController):
    """Tune's controller with a `Conductor` beside it. With hosts, trials get slots of them."""

    conductor: Conductor
    asked: int | None  # sweep.max_concurrent_trials

    def __init__(self, **arguments: Any) -> None:
        hosts = self.conductor.hosts
        arguments["callbacks"] = [*(arguments.get("callbacks") or []), self.conductor.callback]
        shares = self.conductor.shares
        arguments["resource_manager_factory"] = lambda: (
            Slots(hosts) if hosts is not None else bounded(lambda: shares.limit)
        )
        scheduler = arguments.get("scheduler") or FIFOScheduler()
        if isinstance(scheduler, Population):
            scheduler.run = self.conductor.run
        arguments["scheduler"] = Sparing(scheduler, spared(self.conductor.run))
        super().__init__(**arguments)
        self._next_snapshot, self._saved, self._ending = 0.0, None, False
        self.sleep(WAKE_SECONDS)
        self.steering = Steering(self)
        if arguments.get("resume_config") is not None:
            if not self.get_trials():  # Tune would begin the sweep again from nothing
                raise FtlibError(f"{self.conductor.run.path}: Tune's state cannot be read: run the experiment again.")
            self._adopt()
            self._leave_out_again()
            self.steering.take_up()

    def __getstate__(self) -> dict[str, Any]:
        """Tune's own state alone. What is ftlib's is made anew by each driver, and holds things that cannot be
        pickled."""
        state: dict[str, Any] = super().__getstate__()
        return {key: value for key, value in state.items() if key not in OURS}

    def _adopt(self) -> None:
        """Makes Tune's state agree with the run directory. A trial that Tune's state does not know is added."""
        known = {str(trial) for trial in self.get_trials()}
        for trial in self.conductor.run.trials():
            if trial.id in known:
                continue
            point = read_json(trial.path / POINT)
            if point is None:
                self.conductor.callback.forget(trial)
                continue
            self.enroll(trial.id, point, proposed=True)
            if self.has_searcher and not {"cloned_from", "replica_of"} & set(trial.lineage):
                state = self.search_alg.get_state()
                self.search_alg.set_state({**state, "counter": state["counter"] + 1})
                self._searcher().reseed()

    def enroll(self, name: str, point: dict[str, Any], proposed: bool = False) -> Trial:
        """Adds a trial of this name and point, besides what the searcher proposes next. `proposed`: the searcher has
        proposed this point and has forgotten it."""
        like = self.get_trials()[0]
        trial = Trial(
            like.trainable_name,
            config=point,
            evaluated_params=point,
            experiment_tag=name,
            trial_name_creator=Named(name),
            max_failures=like.max_failures,
            storage=copy.copy(like.storage),
        )
        if self.has_searcher:
            limiter = self.search_alg.searcher
            if isinstance(limiter, ConcurrencyLimiter):  # it passes on only what it has counted
                limiter.live_trials.add(trial.trial_id)
                limiter.num_unfinished_live_trials += 1
            self._searcher().adopt(trial.trial_id, point, proposed)
        self.add_trial(trial)
        return trial

    def live(self) -> list[Trial]:
        """The trials that have not ended."""
        return list(self.get_live_trials())

    @property
    def has_searcher(self) -> bool:
        """Whether points are proposed one by one; a population has all of its own."""
        return isinstance(self.search_alg, SearchGenerator)

    def propose_more(self, count: int) -> None:
        """Has the searcher propose so many points more than the experiment asks for."""
        state = self.search_alg.get_state()
        more = {"total_samples": state["total_samples"] + count, "finished": False}
        self.search_alg.set_state({**state, **more})

    def end_proposals(self) -> None:
        """No point is proposed any more."""
        self.search_alg.set_finished()

    def _searcher(self) -> StudySearch:
        searcher = self.search_alg.searcher
        found: StudySearch = searcher.searcher if isinstance(searcher, ConcurrencyLimiter) else searcher
        return found

    def go_on_with(self, trial: Any, point: dict[str, Any]) -> None:
        """A trial that has left goes on from its checkpoint with other values."""
        trial.set_config(point)
        self.fail(trial, preempted_error("asked for by hand"))

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Saves Tune's state, whole, where it has changed. It grows with the sweep: a small share of the time is spent
        on it."""
        began, stands = time.monotonic(), self._stands()
        if force or (began >= self._next_snapshot and stands != self._saved):
            self._saved = stands
            self.save_to_dir()
            keep(self.staging_path, Path(self.experiment_path))
            if force:  # the last one: Tune reads it again for its results, also of trials that have not begun
                lay_out(Path(self.experiment_path))
                for trial in self.get_trials():
                    trial.init_local_path()
            now = time.monotonic()
            self._next_snapshot = now + (now - began) / SNAPSHOT_SHARE

    def _stands(self) -> Any:
        """What changes whenever Tune's state does."""
        reports = [
            (str(trial), trial.status, (trial.last_result or {}).get("time_total_s")) for trial in self.get_trials()
        ]
        return reports, getattr(self.search_alg, "total_samples", None)

    def is_finished(self) -> bool:
        """Whether Tune may end. Not while a trial is moving to another place. In an interrupted run, when all trials
        have saved and left."""
        if self.conductor.interrupt.since is not None:
            return self.conductor.interrupt.over or not self._saving()
        return bool(super().is_finished()) and not self.steering.leaving

    def _saving(self) -> list[Trial]:
        """Trials that can save at any step, and still train. Workers of one trial would have to agree on a step."""
        single = self.conductor.setting.experiment().scale.strategy == "single"
        return [trial for trial in self.get_live_trials() if trial.status == Trial.RUNNING] if single else []

    def may_begin(self) -> bool:
        """Whether trials may begin: not after an interrupt."""
        return self.conductor.interrupt.since is None

    def on_step_begin(self) -> None:
        super().on_step_begin()
        if self.conductor.interrupt.since is not None:
            self.conductor.ask_to_save(self._saving())
            return
        self.conductor.look(self.get_live_trials())
        if self.get_trials():
            self.steering.take_up()
        if self.conductor.budget.over is not None and not self._ending:
            self._ending = True
            self.steering.end_all(self.conductor.budget.over)
        if self.conductor.terminator.is_due(self.conductor.live.ended) and self._left_out() > 0:
            self._end_early()
        hosts = self.conductor.hosts
        if hosts is not None:
            hosts.look()
        self.conductor.share(self.get_live_trials(), self._to_go())
        if hosts is None:
            return
        self._propose_for(hosts.slots)
        if not self.num_live_actors and not hosts.futures:
            time.sleep(IDLE_SECONDS)

    def _left_out(self) -> int:
        """How many trials the searcher has still to propose."""
        state = self.search_alg.get_state()
        return 0 if self.search_alg.is_finished() else int(state["total_samples"] - state["counter"])

    def _end_early(self) -> None:
        """Proposes nothing more where the terminator says that it is not worth its price."""
        why = self.conductor.terminator.look(self.conductor.live.ended, self._left_out(), self._searcher().study)
        if why is not None:
            count = self._left_out()
            self.propose_more(-count)
            self.end_proposals()
            self.conductor.run.log_event("terminated", count=count, why=why)
            self.conductor.say(why)

    def _leave_out_again(self) -> None:
        """Tune's state may be from before the terminator's word."""
        run, experiment = self.conductor.run, self.conductor.setting.experiment()
        if self.has_searcher and self.conductor.terminator.has_spoken:
            asked = experiment.number_of_trials + run.added
            state = self.search_alg.get_state()
            self.propose_more(asked - state["total_samples"])
            if state["counter"] >= asked:
                self.end_proposals()

    def _to_go(self) -> int:
        """Trials that have not ended, and those that are still to be proposed, as far as they may train at once."""
        begun, proposed = len(self.get_live_trials()), len(self.get_trials())
        to_come = 0 if self.search_alg.is_finished() else max(0, self.search_alg.total_samples - proposed)
        to_go = begun + to_come
        return min(to_go, self.asked or to_go)

    def _propose_for(self, slots: int) -> None:
        """The searcher is asked for a point when a slot is there for it: later proposals know more."""
        most = max(1, min(slots, self.asked or slots))
        self.update_max_pending_trials(most)
        limiter = getattr(self.search_alg, "searcher", None)
        if isinstance(limiter, ConcurrencyLimiter):
            limiter.max_concurrent = most
        elif isinstance(self.search_alg, BasicVariantGenerator):
            self.search_alg.max_concurrent = most

    def failure_of(self, trial: Trial, exception: Exception) -> Exception | None:
        """None for a trial that leaves because a person or the budget asked it to."""
        return None if self.steering.has_left(trial) else self.conductor.lost_trials.lost(trial, exception)

    def has_actors(self) -> bool:
        """Trials of a pack live in its host and end with it."""
        return self.conductor.hosts is None


def conducting(conductor: Conductor, asked: int | None) -> AbstractContextManager[None]:
    """Within, `Tuner.fit` runs on ftlib's controller."""
    return controlled_by(Controller, conductor=conductor, asked=asked)
