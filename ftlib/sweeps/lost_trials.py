"""What is lost while a run trains: machines, processes, and trials that have fallen silent.

A trial that is lost with its machine, or leaves it after a warning, is `preempted`: it goes on elsewhere, as often as
that happens, and counts as no failure. Only a crash on a machine that still stands is the trial's own.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import ray

from ftlib.cluster import nodes
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import CHECKPOINT
from ftlib.sweeps.live import Live
from ftlib.sweeps.pack_hosts import Hosts, OpenHost
from ftlib.sweeps.pack_slots import kill
from ftlib.sweeps.solo_trial import preempted_error


class LostTrials:
    """Notes what is lost, and says what Tune should take it for."""

    def __init__(self, run: Run, live: Live, hosts: Hosts | None) -> None:
        self.run, self.live, self.hosts = run, live, hosts
        self.warned: set[tuple[str, str]] = set()
        self.killed: dict[str, float] = {}

    def look(self, running: list[Any], silence: float | None) -> None:
        """Empties machines that are about to go, and ends processes that wrote nothing for `silence` seconds."""
        for node, deadline in nodes.leaving().items():
            self._vacate(node, deadline, running)
        if silence is not None:
            self._end_silent(running, silence)

    def lost(self, trial: Any, error: Exception) -> Exception:
        """Notes a trial that was interrupted; what Tune should take it for: a crash counts, a lost machine does not."""
        ours, now = self.run.trial(str(trial)), time.time()
        home, began = self.live.homes.get(ours.id), ours.id in self.live.started
        died = isinstance(error, ray.exceptions.RayActorError) and not getattr(error, "preempted", False)
        if self.hosts is not None and home is not None and died:
            self.hosts.lose(home)
        self.live.interrupted[ours.id] = now
        lost = round(now - max(self._saved_at(ours), self.live.started.pop(ours.id, now)), 3)
        why = self._why(ours, home, began, error)
        if why is None:
            self.run.log_event(
                "trial_recovered", trial=ours.id, failures=trial.num_failures + 1, why=_line(error), lost_s=lost
            )
            return error
        ours.set_state("preempted", why)
        self.run.log_event("trial_preempted", trial=ours.id, reason=why, node=nodes.place_of(ours.path), lost_s=lost)
        return preempted_error(why)

    @staticmethod
    def _saved_at(trial: Trial) -> float:
        """When its checkpoint was written. The directory itself has the time of what was copied into it."""
        with suppress(FileNotFoundError):  # it is replaced just now, or there is none
            return max(file.stat().st_mtime for file in (trial.path / CHECKPOINT).iterdir())
        return 0.0

    def _why(self, trial: Trial, home: OpenHost | None, began: bool, error: Exception) -> str | None:
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

    def _end_silent(self, running: list[Any], limit: float) -> None:
        """Ends the processes of trials that have written no row for `limit` seconds."""
        for trial in running:
            ours = self.run.trial(str(trial))
            heard = max(self.live.started.get(ours.id, 0.0), self._heard_at(ours), self.killed.get(ours.id, 0.0))
            if time.time() - heard <= limit or trial.temporary_state.ray_actor is None:
                continue
            self.live.hung[ours.id] = f"it wrote nothing for {limit:g} s (scale.report_timeout_s), again and again"
            self.run.log_event("trial_hung", trial=ours.id, silent_s=round(time.time() - heard, 1))
            self.killed[ours.id] = time.time()  # its end takes a moment
            kill(trial.temporary_state.ray_actor)

    @staticmethod
    def _heard_at(trial: Trial) -> float:
        return trial.metrics_path.stat().st_mtime if trial.metrics_path.exists() else 0.0


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[-1].strip() if text else type(error).__name__
