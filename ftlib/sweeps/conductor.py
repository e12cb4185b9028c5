"""What a run's driver does besides Tune's controller: once a second it looks at machines, silent trials and money, and
it shares the cluster with other sweeps.

`callback` writes what Tune decides, `lost_trials` notes what is lost, `budget` counts. `live` is what they have in
common.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ftlib.cluster.fair_share import Shares
from ftlib.cluster.interrupt import Interrupt
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from ftlib.sweeps.budget import Budget
from ftlib.sweeps.callback import RunCallback
from ftlib.sweeps.even_out import NOTHING_TO_DO, idle_and_crowded, movers
from ftlib.sweeps.live import Live
from ftlib.sweeps.lost_trials import LostTrials
from ftlib.sweeps.pack_hosts import ANOTHER_WAITS, Hosts
from ftlib.sweeps.terminator import Terminator

LOOK_SECONDS = 1.0  # between two looks at the cluster


class Conductor:
    """The driver's own work beside Tune's controller, which calls it. Each driver makes a new one."""

    def __init__(
        self,
        run: Run,
        setting: Setting,
        hosts: Hosts | None,
        shares: Shares,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.run, self.setting, self.hosts, self.shares, self.say = run, setting, hosts, shares, say
        self.live = Live(run)
        self.callback = RunCallback(run, setting, self.live)
        self.lost_trials = LostTrials(run, self.live, hosts)
        self.budget = Budget(run, setting.experiment())
        self.terminator = Terminator(run, setting.experiment())
        self.interrupt = Interrupt()
        self.looked = 0.0

    def look(self, trials: Iterable[Any]) -> None:
        """Once a second: which machines are about to go, which trials have fallen silent, what was spent."""
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        running = [trial for trial in trials if trial.status == "RUNNING"]
        self.lost_trials.look(running, self.setting.experiment().scale.report_timeout_s)
        self.budget.look()

    def share(self, trials: Iterable[Any], to_go: int) -> None:
        """Tells other sweeps what this sweep has and wants, and gives back what is above its share while another one
        waits."""
        shares, hosts = self.shares, self.hosts
        if hosts is not None:
            hosts.fit(to_go, shares.limit, moving=bool(self.live.moving))
            shares.has, shares.wants = len(hosts.loaded), hosts.wanted
            self._even_out(hosts, [trial for trial in trials if trial.status == "RUNNING"], to_go)
            return
        running = [trial for trial in trials if trial.status == "RUNNING"]
        shares.has, shares.wants = len(running), to_go
        if shares.limit is None or self.setting.experiment().scale.strategy != "single":  # these give as trials end
            return
        running.sort(key=lambda trial: self.live.started.get(str(trial), 0.0))
        for trial in running[shares.limit :]:
            if str(trial) not in self.live.moving:
                self._move(trial, ANOTHER_WAITS)

    def _even_out(self, hosts: Hosts, running: list[Any], to_go: int) -> None:
        """Fills an idle host with trials of its neighbour, where no other trial comes that would."""
        apart = idle_and_crowded(hosts.loaded)
        if apart is None or len(running) < to_go or self.live.moving:
            return
        crowd = [self.run.trial(str(trial)) for trial in running if self.live.homes.get(str(trial)) is apart[1]]
        for trial in movers(crowd):
            self._move(trial.id, NOTHING_TO_DO)

    def _move(self, trial: object, why: str) -> None:
        self.live.moving.add(str(trial))
        self.live.ask_to_leave(trial, why)

    def ask_to_save(self, trials: list[Any]) -> None:
        """Asks all running trials to save where they stand, because the run is interrupted. They continue from there
        when it is resumed."""
        if not self.interrupt.asked and trials:
            self.say("interrupted: trials save where they stand, and the run ends (once more: at once)")
        if self.interrupt.asks_again():
            self.live.ask_all_to_leave(trials, "interrupted")
