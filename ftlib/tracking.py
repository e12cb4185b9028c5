"""Trackers follow the run directory: a thread reads new rows of `metrics.jsonl` and hands them to W&B and TensorBoard.

Training never waits for a tracker and never hears of its failures. Each trial is one W&B run in the run's group; its
id is made from the run and the trial, so a resumed trial goes on in the run it had.
"""

from __future__ import annotations

import copy
import hashlib
import netrc
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, Protocol

from ftlib.config import TrackSection, Wandb
from ftlib.config.loader import set_dotted
from ftlib.errors import ConfigError
from ftlib.runs import BASE, ENDED, Run, Trial, read_json, write_json

POSITIONS = "tracking.json"  # in the run directory: per tracker and trial, the rows handed over and the state
Mode = Literal["online", "offline", "disabled"]
WANDB_URL = "https://api.wandb.ai"
SKIPPED = ("step", "time")


class Tracker(Protocol):
    """A place for numbers. `log` gets rows of one trial in the order of their steps; `end` its final state."""

    name: str

    def log(self, trial: Trial, row: dict[str, Any]) -> None:
        """Takes one row."""

    def end(self, trial: Trial, state: str) -> None:
        """Closes one trial."""

    def close(self) -> None:
        """Closes what is still open."""


@contextmanager
def following(run: Run, track: TrackSection, warn: Callable[[str], None], every: float = 1.0) -> Iterator[None]:
    """Tracks the run while the block lasts, and what is left after it. `warn` gets one sentence a failed tracker."""
    follower = _Follower(run, _trackers(run, track, warn), warn)
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(every):
            follower.follow()

    thread = threading.Thread(target=loop, name="ftlib-tracking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=120)
        if thread.is_alive():
            warn("tracking: a tracker does not answer; its last rows are only in metrics.jsonl.")
        else:
            follower.follow()
            follower.close()


class _Follower:
    """Hands each new row to each tracker once; a tracker that fails is dropped with one warning."""

    def __init__(self, run: Run, trackers: list[Tracker], warn: Callable[[str], None]) -> None:
        self.run, self.trackers, self.warn = run, trackers, warn
        self.handed: dict[str, dict[str, dict[str, Any]]] = read_json(run.path / POSITIONS) or {}

    def follow(self) -> None:
        """One look at every trial."""
        base = self.run.trial(BASE)
        for trial in [*([base] if base.path.exists() else []), *self.run.trials()]:
            state, rows = trial.state, trial.metrics()  # the state first: no row comes after a final one
            for tracker in list(self.trackers):
                self._guarded(tracker, partial(self._hand_over, tracker, trial, rows, state))
        write_json(self.run.path / POSITIONS, self.handed)

    def close(self) -> None:
        """Closes what trials that did not end have left open."""
        for tracker in list(self.trackers):
            self._guarded(tracker, tracker.close)

    def _hand_over(self, tracker: Tracker, trial: Trial, rows: list[dict[str, Any]], state: str) -> None:
        handed = self.handed.setdefault(tracker.name, {})
        # A resumed trial has forgotten the rows after its checkpoint: they come again.
        before = handed.get(trial.id, {"rows": 0, "state": "pending"})
        start = min(before["rows"], len(rows))
        for row in rows[start:]:
            tracker.log(trial, row)
        if state in ENDED and (state != before["state"] or len(rows) > start):
            tracker.end(trial, state)
        handed[trial.id] = {"rows": len(rows), "state": state}

    def _guarded(self, tracker: Tracker, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.trackers.remove(tracker)
            self.run.log_event("tracker_failed", tracker=tracker.name, why=str(error))
            self.warn(f"{tracker.name} failed and is off for the rest of this run: {_line(error)}")


class _TensorBoard:
    """Event files under `<run>/tensorboard/<trial>`: `tensorboard --logdir <run>/tensorboard`."""

    name = "tensorboard"

    def __init__(self, run: Run) -> None:
        self.run = run
        self.writers: dict[str, Any] = {}

    def log(self, trial: Trial, row: dict[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        if trial.id not in self.writers:
            folder = self.run.path / "tensorboard" / trial.id
            self.writers[trial.id] = SummaryWriter(str(folder), filename_suffix=f".{row['step']}")
        for name, value in row.items():
            if name not in SKIPPED and isinstance(value, int | float):
                self.writers[trial.id].add_scalar(name, value, row["step"])

    def end(self, trial: Trial, state: str) -> None:
        if trial.id in self.writers:
            self.writers.pop(trial.id).close()

    def close(self) -> None:
        while self.writers:
            self.writers.popitem()[1].close()


class _Wandb:
    """One W&B run a trial. Their files lie under `<run>/wandb`; `wandb sync <run>/wandb/offline-*` uploads them."""

    name = "wandb"

    def __init__(self, run: Run, settings: Wandb, mode: Mode, warn: Callable[[str], None]) -> None:
        self.run, self.settings, self.mode, self.warn = run, settings, mode, warn
        self.runs: dict[str, Any] = {}

    def log(self, trial: Trial, row: dict[str, Any]) -> None:
        values = {name: value for name, value in row.items() if name not in SKIPPED}
        self._open(trial).log(values, step=row["step"])

    def end(self, trial: Trial, state: str) -> None:
        run = self._open(trial)
        run.summary["state"] = state
        run.finish(exit_code=1 if state == "failed" else 0)
        del self.runs[trial.id]

    def close(self) -> None:
        while self.runs:
            _, run = self.runs.popitem()
            run.summary["state"] = "interrupted"
            run.finish(exit_code=1)

    def _open(self, trial: Trial) -> Any:
        if self.mode == "online" and not self.runs and not _reachable(WANDB_URL):
            self.mode = "offline"  # asked before `init`: an id whose `init` failed stays taken in W&B's service
            self.warn("W&B cannot be reached: this run is kept offline, and 'wandb sync' brings it online later.")
        if trial.id not in self.runs:
            self.runs[trial.id] = self._init(trial)
        return self.runs[trial.id]

    def _init(self, trial: Trial) -> Any:
        import wandb

        resolved = self.run.resolved["experiment"]
        return wandb.init(
            project=self.settings.project,
            entity=self.settings.entity,
            group=self.settings.group or self.run.name,
            name=f"{self.settings.name or resolved['name']}-{trial.id}",
            tags=self.settings.tags or None,
            notes=self.settings.notes,
            id=wandb_id(self.run, trial),
            resume="allow",
            reinit="create_new",
            mode=self.mode,
            dir=str(self.run.path),
            config={"trial": trial.id, "params": trial.params, "experiment": _at(resolved, trial.params)},
            settings=wandb.Settings(silent=True, init_timeout=30, console="off", x_disable_stats=True),
        )


def wandb_id(run: Run, trial: Trial) -> str:
    """The W&B run id of a trial: the same after every resume."""
    return hashlib.sha256(f"{run.name}/{trial.id}".encode()).hexdigest()[:16]


def wandb_mode(settings: Wandb) -> Mode:
    """`auto` is online where there is a key. Raises ConfigError when online is asked for and there is none."""
    if settings.mode == "auto":
        return "online" if _has_key() else "offline"
    if settings.mode == "online" and not _has_key():
        raise ConfigError("track.wandb.mode is 'online', but there is no key: set WANDB_API_KEY, or use mode: offline.")
    return settings.mode


def _reachable(url: str, seconds: float = 10) -> bool:
    """Whether anything answers there, through the proxies of the environment; an error page is an answer."""
    try:
        urllib.request.urlopen(os.environ.get("WANDB_BASE_URL") or url, timeout=seconds).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _trackers(run: Run, track: TrackSection, warn: Callable[[str], None]) -> list[Tracker]:
    trackers: list[Tracker] = [_TensorBoard(run)] if track.tensorboard else []
    if track.wandb is not None:
        mode = wandb_mode(track.wandb)
        trackers += [_Wandb(run, track.wandb, mode, warn)] if mode != "disabled" else []
    return trackers


def _at(resolved: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The resolved experiment at a trial's point, without the sweep that proposed it."""
    tree: dict[str, Any] = copy.deepcopy(resolved)
    tree["sweep"] = None
    for path, value in params.items():
        set_dotted(tree, path, value)
    return tree


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
