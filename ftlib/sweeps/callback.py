"""What a run's driver does besides Tune: writes Tune's decisions into the run directory, and looks after what is lost.

A trial that is lost with its machine, or leaves it after a warning, is `preempted`: it goes on elsewhere, as often as
that happens, and counts as no failure. Only a crash on a machine that still stands is the trial's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import ray
import ray.tune
from ray.util.placement_group import PlacementGroup, remove_placement_group

from ftlib.cluster import nodes
from ftlib.cluster.fair_share import Shares
from ftlib.cluster.interrupt import Interrupt
from ftlib.files.atomic import write_json
from ftlib.run import mirror
from ftlib.run.context import Setting
from ftlib.run.cost import spent
from ftlib.run.directory import ENDED, Run, Trial
from ftlib.run.layout import CHECKPOINT, PARAMS, POINT
from ftlib.sweeps.pack_hosts import ANOTHER_WAITS, Hosts, Place
from ftlib.sweeps.pack_slots import host_of, kill
from ftlib.sweeps.search import FAILED
from ftlib.sweeps.solo_trial import moved, workers_place

LEAVING_SECONDS = 2.0  # between the end of a trial and that of its actor
LOOK_SECONDS = 1.0  # between two looks at the cluster
COUNT_SECONDS = 5.0  # between two sums of what the run has cost


class Conductor(ray.tune.Callback):
    """A Tune callback, and what the controller asks when something is lost. It is made anew by each driver."""

    def __init__(
        self,
        run: Run,
        setting: Setting,
        hosts: Hosts | None,
        shares: Shares,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.run, self.setting, self.hosts, self.shares, self.say = run, setting, hosts, shares, say
        self.ended: list[tuple[float, PlacementGroup | None]] = []
        self.homes: dict[str, Place] = {}  # of trials in packs
        self.started: dict[str, float] = {}
        self.interrupted: dict[str, float] = {}
        self.warned: set[tuple[str, str]] = set()
        self.giving: set[str] = set()  # trials that are asked to leave for another sweep
        self.ends: dict[str, str] = {}  # trials that are stopped by other than the scheduler, and by whom
        self.over: str | None = None  # which budget is over
        self.interrupt = Interrupt()
        self.hung: dict[str, str] = {}
        self.killed: dict[str, float] = {}
        self.looked = self.counted = 0.0

    # --- what Tune tells ----------------------------------------------------------------------------------------

    def forget(self, trial: Trial, why: str = "proposed just before the driver was killed") -> None:
        """Drops the directory of a trial that never began."""
        self.run.log_event("forgotten", trial=trial.id, why=why)
        mirror.forget(self.run, trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Gives back the workers of ended trials. A stopped trial's Train controller dies with its actor, and Ray
        leaves the placement group standing: its own cleaner asks the dashboard, which need not run."""
        gone = [place for ended, place in self.ended if time.monotonic() - ended >= LEAVING_SECONDS]
        self.ended = self.ended[len(gone) :]
        give_back(gone)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self.run.trial(str(trial))
        self.giving.discard(ours.id)
        place = host_of(trial.temporary_state.ray_actor)
        if place is not None:
            self.homes[ours.id] = place
        self.started[ours.id] = time.time()
        if ours.state in ENDED:  # the driver was killed between our note of its end and Tune's own
            return
        write_json(ours.path / POINT, trial.config)
        write_json(ours.path / PARAMS, self.setting.experiment().resolve_ratios(trial.config))
        ours.set_state("running")
        now = time.time()
        waited = round(now - self.interrupted.pop(ours.id, now), 3)
        host = None if place is None else place.number
        self.run.log_event("trial_started", trial=ours.id, host=host, failures=trial.num_failures, waited_s=waited)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._leave(trial)
        ours, result = self.run.trial(str(trial)), trial.last_result or {}
        if ours.state == "pending" and not result:  # a budget was over before it began
            self.forget(ours, "the sweep ended before it began")
        elif FAILED in result:
            self._end(ours, "failed", result[FAILED])
        elif result.get("finished") or result.get("progress", 0) >= 1:  # a scheduler may stop it at its last evaluation
            self._end(ours, "finished", None)
        else:
            by = self.ends.pop(ours.id, "by the scheduler")
            self._end(ours, "stopped", f"{by} at {result.get('tokens', 0):,} tokens")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._leave(trial)
        times = f" {trial.num_failures} times" if trial.num_failures > 1 else ""
        why = self.hung.get(str(trial)) or f"its process died{times} (killed, or the machine ran out of memory)"
        self._end(self.run.trial(str(trial)), "failed", why)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._leave(trial)

    def _leave(self, trial: Any) -> None:
        self.homes.pop(str(trial), None)
        self.ended.append((time.monotonic(), workers_place(self.run.path, str(trial))))

    def _end(self, trial: Trial, state: Any, reason: str | None) -> None:
        trial.set_state(state, reason)
        self.run.log_event(f"trial_{state}", trial=trial.id, reason=reason)

    # --- what is lost -------------------------------------------------------------------------------------------

    def lost(self, trial: Any, error: Exception) -> Exception:
        """Notes a trial that was interrupted; what Tune should take it for: a crash counts, a lost machine does not."""
        ours, now = self.run.trial(str(trial)), time.time()
        home, began = self.homes.get(ours.id), ours.id in self.started
        died = isinstance(error, ray.exceptions.RayActorError) and not getattr(error, "preempted", False)
        if self.hosts is not None and home is not None and died:
            self.hosts.lose(home)
        self.interrupted[ours.id] = now
        lost = round(now - max(self._saved_at(ours), self.started.pop(ours.id, now)), 3)
        why = self._why(ours, home, began, error)
        if why is None:
            self.run.log_event(
                "trial_recovered", trial=ours.id, failures=trial.num_failures + 1, why=_line(error), lost_s=lost
            )
            return error
        ours.set_state("preempted", why)
        self.run.log_event("trial_preempted", trial=ours.id, reason=why, node=nodes.place_of(ours.path), lost_s=lost)
        return moved(why)

    @staticmethod
    def _saved_at(trial: Trial) -> float:
        """When its checkpoint was written. The directory itself has the time of what was copied into it."""
        with suppress(FileNotFoundError):  # it is replaced just now, or there is none
            return max(file.stat().st_mtime for file in (trial.path / CHECKPOINT).iterdir())
        return 0.0

    def _why(self, trial: Trial, home: Place | None, began: bool, error: Exception) -> str | None:
        """Why a trial goes on elsewhere; None where its own process crashed."""
        if getattr(error, "preempted", False):
            said = isinstance(error, ray.exceptions.RayTaskError)  # by the trial itself, as it left
            return str(getattr(error, "error_msg", "")) if said else "its machine was taken away"
        if not isinstance(error, ray.exceptions.RayActorError):
            return None
        if self.hosts is not None and not began:
            return "its host was lost before it began"
        if home is not None:
            gone = home.machine_gone
        else:
            node = nodes.of_actor(error.actor_id) or nodes.place_of(trial.path)
            gone = node is not None and not nodes.answers(node)
        return "its machine was lost" if gone else None

    # --- now and then -------------------------------------------------------------------------------------------

    def look(self, trials: Iterable[Any]) -> None:
        """Once a second: which machines are about to go, and which trials have fallen silent."""
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        running = [trial for trial in trials if trial.status == "RUNNING"]
        leaving = nodes.leaving()
        for node, deadline in leaving.items():
            self._vacate(node, deadline, running)
        limit = self.setting.experiment().scale.report_timeout_s
        if limit is not None:
            self._end_silent(running, limit)

        if self.over is None and time.monotonic() - self.counted > COUNT_SECONDS:
            self.counted = time.monotonic()
            self.over = self._budget_over()

    def _budget_over(self) -> str | None:
        experiment = self.setting.experiment()
        budget, scale = experiment.budget, experiment.scale
        if budget.max_cost is None and budget.max_hours is None:
            return None
        so_far = spent(self.run, scale.num_workers, running=True)
        cost = so_far.cost(scale)
        if budget.max_cost is not None and cost is not None and cost >= budget.max_cost:
            return f"budget.max_cost: {budget.max_cost:g} is spent"
        if budget.max_hours is not None and so_far.hours >= budget.max_hours:
            return f"budget.max_hours: {budget.max_hours:g} h are over"
        return None

    def _vacate(self, node: str, deadline: float | None, running: list[Any]) -> None:
        why = "its machine is about to be taken away"
        if self.hosts is not None:
            self.hosts.vacate(node, why)
        here = [
            self.run.trial(str(trial)) for trial in running if nodes.place_of(self.run.trial(str(trial)).path) == node
        ]
        if (node, "") not in self.warned:
            self.warned.add((node, ""))
            left = None if deadline is None else round(deadline - time.time(), 1)
            self.run.log_event("node_leaving", node=node, seconds_left=left, trials=[trial.id for trial in here])
        for trial in here:
            if self.hosts is None and (node, trial.id) not in self.warned:
                self.warned.add((node, trial.id))
                trial.ask_to_leave(why)

    def share(self, trials: Iterable[Any], to_go: int) -> None:
        """Says what this sweep has and wants, and gives back what is above its share while another waits."""
        shares, hosts = self.shares, self.hosts
        if hosts is not None:
            hosts.fit(to_go, shares.limit)
            shares.has, shares.wants = len(hosts.loaded), hosts.wanted
            return
        running = [trial for trial in trials if trial.status == "RUNNING"]
        shares.has, shares.wants = len(running), to_go
        if shares.limit is None or self.setting.experiment().scale.strategy != "single":  # these give as trials end
            return
        running.sort(key=lambda trial: self.started.get(str(trial), 0.0))
        for trial in running[shares.limit :]:
            if str(trial) not in self.giving:
                self.giving.add(str(trial))
                self.ask_to_leave(trial, ANOTHER_WAITS)

    def ask_to_save(self, trials: list[Any]) -> None:
        """The run is interrupted: all that train save where they stand, and go on from there when it is resumed."""
        if not self.interrupt.asked and trials:
            self.say("interrupted: trials save where they stand, and the run ends (once more: at once)")
        if self.interrupt.asks_again():
            for trial in trials:
                self.ask_to_leave(trial, "interrupted")

    def ask_to_leave(self, trial: Any, why: str) -> None:
        """Asks a running trial to save where it stands and to leave its slot or process."""
        home = self.homes.get(str(trial))
        if home is not None:
            home.handle.release.remote(str(trial), why)
        else:
            self.run.trial(str(trial)).ask_to_leave(why)

    def _end_silent(self, running: list[Any], limit: float) -> None:
        """Ends the processes of trials that have written no row for `limit` seconds."""
        for trial in running:
            ours = self.run.trial(str(trial))
            heard = max(self.started.get(ours.id, 0.0), self._heard_at(ours), self.killed.get(ours.id, 0.0))
            if time.time() - heard <= limit or trial.temporary_state.ray_actor is None:
                continue
            self.hung[ours.id] = f"it wrote nothing for {limit:g} s (scale.report_timeout_s), again and again"
            self.run.log_event("trial_hung", trial=ours.id, silent_s=round(time.time() - heard, 1))
            self.killed[ours.id] = time.time()  # its end takes a moment
            kill(trial.temporary_state.ray_actor)

    @staticmethod
    def _heard_at(trial: Trial) -> float:
        return trial.metrics_path.stat().st_mtime if trial.metrics_path.exists() else 0.0


def give_back(places: Iterable[PlacementGroup | None]) -> None:
    """Frees what the workers of ended trials held; one that is free already is no error."""
    for place in places:
        if place is not None:
            remove_placement_group(place)


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[-1].strip() if text else type(error).__name__
