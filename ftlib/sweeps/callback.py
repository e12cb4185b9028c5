"""Ray Tune's decisions about trials, written into the run directory: what people and later commands read."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import ray.tune
from ray.util.placement_group import PlacementGroup, remove_placement_group

from ftlib.files.atomic import write_json
from ftlib.run import remote_run
from ftlib.run.context import Setting
from ftlib.run.directory import ENDED, Run, Trial
from ftlib.run.layout import PARAMS, POINT
from ftlib.sweeps.live import Live
from ftlib.sweeps.pack_slots import host_of
from ftlib.sweeps.search import FAILED
from ftlib.sweeps.solo_trial import workers_place

LEAVING_SECONDS = 2.0  # between the end of a trial and that of its actor


class RunCallback(ray.tune.Callback):
    """Writes `params.json`, `point.json` and `status.json` as Tune decides; all that write them are in the driver."""

    def __init__(self, run: Run, setting: Setting, live: Live) -> None:
        self.run, self.setting, self.live = run, setting, live
        self.ended: list[tuple[float, PlacementGroup | None]] = []

    def forget(self, trial: Trial, why: str = "proposed just before the driver was killed") -> None:
        """Drops the directory of a trial that never began."""
        self.run.log_event("forgotten", trial=trial.id, why=why)
        remote_run.forget(self.run, trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Gives back the workers of ended trials. A stopped trial's Train controller dies with its actor, and Ray
        leaves the placement group standing: its own cleaner asks the dashboard, which need not run."""
        gone = [place for ended, place in self.ended if time.monotonic() - ended >= LEAVING_SECONDS]
        self.ended = self.ended[len(gone) :]
        give_back(gone)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self.run.trial(str(trial))
        self.live.moving.discard(ours.id)
        place = host_of(trial.temporary_state.ray_actor)
        if place is not None:
            self.live.homes[ours.id] = place
        self.live.started[ours.id] = time.time()
        if ours.state in ENDED:  # the driver was killed between our note of its end and Tune's own
            return
        write_json(ours.path / POINT, trial.config)
        write_json(ours.path / PARAMS, self.setting.experiment().resolve_ratios(trial.config))
        ours.set_state("running")
        now = time.time()
        waited = round(now - self.live.interrupted.pop(ours.id, now), 3)
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
            by = self.live.ends.pop(ours.id, "by the scheduler")
            self._end(ours, "stopped", f"{by} at {result.get('tokens', 0):,} tokens")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._leave(trial)
        times = f" {trial.num_failures} times" if trial.num_failures > 1 else ""
        why = self.live.hung.get(str(trial)) or f"its process died{times} (killed, or the machine ran out of memory)"
        self._end(self.run.trial(str(trial)), "failed", why)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._leave(trial)

    def _leave(self, trial: Any) -> None:
        self.live.homes.pop(str(trial), None)
        self.ended.append((time.monotonic(), workers_place(self.run.path, str(trial))))

    def _end(self, trial: Trial, state: Any, reason: str | None) -> None:
        self.live.moving.discard(trial.id)
        trial.set_state(state, reason)
        self.live.ended += 1
        self.run.log_event(f"trial_{state}", trial=trial.id, reason=reason)


def give_back(places: Iterable[PlacementGroup | None]) -> None:
    """Frees what the workers of ended trials held; one that is free already is no error."""
    for place in places:
        if place is not None:
            remove_placement_group(place)
