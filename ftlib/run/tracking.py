"""Trackers follow the run directory: a thread reads new rows of `metrics.jsonl` and hands them to W&B and TensorBoard.

Training never waits for a tracker and never hears of its failures. Each trial is one W&B run in the run's group; its
id is made from the run and the trial, so a resumed trial goes on in the run it had.
"""

from __future__ import annotations

import configparser
import copy
import hashlib
import netrc
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from ftlib.config import TrackSection, Wandb
from ftlib.config.loader import set_dotted
from ftlib.errors import ConfigError, nearest
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.files.repeating import repeating
from ftlib.run.directory import ENDED, Run, Trial
from ftlib.run.layout import BASE, TENSORBOARD, TRACKING

Mode = Literal["online", "offline", "disabled"]
PRIVATE: tuple[Mode, ...] = ("online", "offline", "disabled")  # from the least to the most
MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}  # W&B's words
WANDB_URL = "https://api.wandb.ai"
WANDB_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com", "forge.coreweave.com")  # one server, by its names
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
    try:
        with repeating(follower.follow, every, "ftlib-tracking", patience=120) as thread:
            yield
    finally:
        if thread.is_alive():
            warn("tracking: a tracker does not answer; its last rows are only in metrics.jsonl.")
        else:
            follower.follow()
            follower.close()


class _Follower:
    """Hands each new row to each tracker once; a tracker that fails is dropped with one warning."""

    def __init__(self, run: Run, trackers: list[Tracker], warn: Callable[[str], None]) -> None:
        self.run, self.trackers, self.warn = run, trackers, warn
        self.handed: dict[str, dict[str, dict[str, Any]]] = read_json(run.path / TRACKING, dict) or {}
        self.written: dict[str, Any] | None = None

    def follow(self) -> None:
        """One look at every trial."""
        base = self.run.trial(BASE)
        for trial in [*([base] if base.path.exists() else []), *self.run.trials()]:
            state, rows = trial.state, trial.metrics()  # the state first: no row comes after a final one
            for tracker in list(self.trackers):
                self._guarded(tracker, partial(self._hand_over, tracker, trial, rows, state))
        if self.handed != self.written:
            write_json(self.run.path / TRACKING, self.handed)
            self.written = copy.deepcopy(self.handed)

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
            folder = self.run.path / TENSORBOARD / trial.id
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
        if self.mode == "online" and not self.runs and not _reachable():
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
    """`auto` is online where there is a key. What W&B's own variables and settings files say holds too: of all that is
    said, data goes the shortest way. Raises ConfigError when online is asked for and there is no key."""
    said = {"track.wandb.mode": settings.mode, **_said()}
    modes = {key: MODES[mode] for key, mode in said.items() if mode != "auto"}
    asked = max(modes.values(), key=PRIVATE.index, default=None)
    if asked in ("offline", "disabled"):
        return asked
    if _has_key():
        return "online"
    if asked == "online":
        key = next(key for key, mode in modes.items() if mode == "online")
        raise ConfigError(
            f"{key} is 'online', but there is no key for {base_url()}: set WANDB_API_KEY, or use mode: offline."
        )
    return "offline"


def _said() -> dict[str, str]:
    """What is said of the mode outside of the experiment. Raises ConfigError for a word that W&B does not know."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return {"WANDB_DISABLED": "disabled"}
    file = _settings().get("mode") or ("disabled" if _settings().get("disabled") == "true" else "")
    said = {"WANDB_MODE": os.environ.get("WANDB_MODE", "").lower(), "mode of W&B's settings file": file}
    found = {key: mode for key, mode in said.items() if mode}
    for key, mode in found.items():
        if mode not in MODES:
            raise ConfigError(f"{key} is '{mode}', but must be one of: {', '.join(MODES)}.{nearest(mode, MODES)}")
    return found


def _settings() -> dict[str, str]:
    """W&B's settings files: the user's, and above it that of the working directory."""
    parser = configparser.ConfigParser(interpolation=None)
    user = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    here = Path(os.environ.get("WANDB_DIR") or ".").expanduser() / "wandb"
    try:
        parser.read([user / "settings", here / "settings"], encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):  # W&B says so itself
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}


def base_url() -> str:
    """The W&B server that is meant: not everybody's is W&B's own."""
    return (os.environ.get("WANDB_BASE_URL") or _settings().get("base_url") or WANDB_URL).rstrip("/")


def _reachable(seconds: float = 10) -> bool:
    """Whether anything answers there, through the proxies of the environment; an error page is an answer."""
    try:
        urllib.request.urlopen(base_url(), timeout=seconds).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _has_key() -> bool:
    """Whether there is a key for that server: one for another would be sent nowhere, or to the wrong place."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urllib.parse.urlsplit(base_url()).netloc
    try:
        known = netrc.netrc(os.environ.get("NETRC") or None).hosts  # not its `default`, which is of any server
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.get(server, ("", "", ""))[2] for server in (WANDB_HOSTS if host in WANDB_HOSTS else (host,)))


def _trackers(run: Run, track: TrackSection, warn: Callable[[str], None]) -> list[Tracker]:
    trackers: list[Tracker] = [_TensorBoard(run)] if track.tensorboard else []
    if track.wandb is not None:
        mode = wandb_mode(track.wandb)
        if track.wandb.mode not in ("auto", mode):
            warn(f"track.wandb.mode is '{track.wandb.mode}', and {next(iter(_said()))} says {mode}: W&B is {mode}.")
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
