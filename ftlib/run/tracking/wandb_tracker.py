"""Each trial is one W&B run in the run's group, and the sweep's results are one more.

Ids are made from the run and the trial, so a resumed trial goes on in the W&B run that it had.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

from ftlib.config import Wandb
from ftlib.config.loader import set_dotted
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import BASE
from ftlib.run.tracking.names import OBJECTIVE, STEP, Names
from ftlib.run.tracking.results import Results, best_value
from ftlib.run.tracking.wandb_settings import Mode, reachable
from ftlib.run.tracking.wandb_sweep import SWEEP, tell

TITLE = 60  # characters of an alert's title: W&B takes 63


class WandbTracker:
    """Its files lie under `<run>/wandb`; `wandb sync <run>/wandb/offline-*` uploads what was kept offline."""

    name = "wandb"

    def __init__(self, run: Run, settings: Wandb, mode: Mode, warn: Callable[[str], None]) -> None:
        self.run, self.settings, self.mode, self.warn = run, settings, mode, warn
        self.names = Names.of(run)
        self.runs: dict[str, Any] = {}
        self.alerted = False

    def log(self, trial: Trial, row: dict[str, Any]) -> None:
        """Takes one row."""
        self._open(trial).log(self.names.row(row), step=row["step"])

    def end(self, trial: Trial, state: str) -> None:
        """Closes one trial's run, with its best evaluation in the summary."""
        run = self._open(trial)
        run.summary["state"] = state
        best = best_value(self.run, trial)
        if best is not None:
            run.summary[OBJECTIVE] = best
        if state == "failed" and not self.alerted:  # of many that fail, the first tells; the others are in the last
            self._alert(run, f"{trial.id} of {self.run.name} failed", trial.status.get("reason") or "", "ERROR")
            self.alerted = True
        run.finish(exit_code=1 if state == "failed" else 0)
        del self.runs[trial.id]

    def conclude(self, results: Results) -> None:
        """The sweep's own run: its tables, artifacts, and the alert that it is over."""
        run = self._start(SWEEP, SWEEP, {}, self.settings.notes or results.verdict)
        tell(run, results, self.settings, self.names, online=self.mode == "online")
        what = results.trouble or results.verdict
        failed = f"; {results.failed} trials failed" if results.failed else ""
        wrong = bool(results.trouble) or results.winner is None
        title = f"{self.run.name} {'failed' if wrong else 'is done'}"
        self._alert(run, title, what + failed, "ERROR" if wrong else "INFO")
        run.finish(exit_code=1 if results.trouble else 0)

    def close(self) -> None:
        """Closes the runs of trials that did not end."""
        while self.runs:
            _, run = self.runs.popitem()
            run.summary["state"] = "interrupted"
            run.finish(exit_code=1)

    def _alert(self, run: Any, title: str, text: str, level: str) -> None:
        if self.settings.alerts and self.mode == "online":
            run.alert(title[-TITLE:], text, level)

    def _open(self, trial: Trial) -> Any:
        if trial.id not in self.runs:
            job = BASE if trial.id == BASE else "trial"
            self.runs[trial.id] = self._start(trial.id, job, trial.params, self.settings.notes)
        return self.runs[trial.id]

    def _start(self, name: str, job: str, params: dict[str, Any], notes: str | None) -> Any:
        import wandb

        if self.mode == "online" and not self.runs and not reachable():
            self.mode = "offline"  # asked before `init`: an id whose `init` failed stays taken in W&B's service
            self.warn("W&B cannot be reached: this run is kept offline, and 'wandb sync' brings it online later.")
        resolved = self.run.experiment
        run = wandb.init(
            project=self.settings.project,
            entity=self.settings.entity,
            group=group_of(self.run, self.settings),
            job_type=job,
            name=f"{self.settings.name or resolved['name']}-{name}",
            tags=self.settings.tags or None,
            notes=notes,
            id=_id(self.run, name),
            resume="allow",
            reinit="create_new",
            mode=self.mode,
            dir=str(self.run.path),
            config={**self.names.parameters(params), "trial": name, "experiment": _at(resolved, params)},
            # The machine of the driver says nothing: a trial measures its own, as `machine/...` in its rows.
            settings=wandb.Settings(silent=True, init_timeout=30, console="off", x_disable_stats=True),
        )
        self._define(run)
        return run

    def _define(self, run: Any) -> None:
        """Everything over optimizer steps; of the objective W&B's summary has the best, as the leaderboard has."""
        metric, mode = self.run.objective
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)
        run.define_metric(self.names.metric(metric), step_metric=STEP, summary=mode)


def wandb_id(run: Run, trial: Trial) -> str:
    """The W&B run id of a trial: the same after every resume."""
    return _id(run, trial.id)


def group_of(run: Run, settings: Wandb) -> str:
    """The W&B group of a run's trials."""
    return settings.group or run.name


def _id(run: Run, name: str) -> str:
    return hashlib.sha256(f"{run.name}/{name}".encode()).hexdigest()[:16]


def _at(resolved: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The resolved experiment at a trial's point, without the sweep that proposed it."""
    if not params:
        return resolved
    tree: dict[str, Any] = copy.deepcopy(resolved)
    tree["sweep"] = None
    for path, value in params.items():
        set_dotted(tree, path, value)
    return tree
