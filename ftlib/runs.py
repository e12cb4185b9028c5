"""The run directory: the whole truth of one execution, and the seam between training and everything after it.

    <storage>/<name>-<time>/
      experiment.yaml  resolved.json  events.jsonl  leaderboard.csv
      tune/                                Ray Tune's own state
      trials/<id>/  params.json   the point of the space        status.json  where it stands, and why
                    metrics.jsonl one row per log and evaluation manifest.json what the weights are
                    checkpoint/   the latest position            adapter/ or model/  the best weights so far

Everything can be read with `cat`. Every file is written to a temporary name and renamed; a directory is replaced by
two renames, and a reader that finds it half way takes the old one.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import math
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftlib.errors import FtlibError, InputError, nearest
from ftlib.storage.patience import patiently

State = Literal["pending", "running", "finished", "stopped", "failed", "preempted"]
ENDED: tuple[State, ...] = ("finished", "stopped", "failed")
BASE = "base"  # the id under which the untuned base is evaluated
STAMP = re.compile(r"-\d{8}-\d{6}-[0-9a-f]{4}$")  # what a run's directory adds to its experiment's name
LINEAGE = "lineage.json"  # in a trial's directory: what a person has done to it, and whose clone it is
POINT = "point.json"  # in a trial's directory: the point as it was proposed, ratios unresolved
LEAVE = "leave.json"  # in a trial's directory: that it should leave its machine, and why
FIRST = "000"  # the id of the first trial


def home() -> Path:
    """Where the registry and the caches live: `$FTLIB_HOME`, or `~/.ftlib`."""
    return Path(os.environ.get("FTLIB_HOME") or Path.home() / ".ftlib").expanduser().absolute()


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or nothing of it. Raises StorageError where that is not possible for a minute."""
    staged = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(text, encoding="utf-8")
        os.replace(staged, path)

    patiently(write, path)


def write_json(path: Path, value: Any) -> None:
    """Writes a whole JSON file or nothing of it."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in a file, or None when there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds one JSON line. A line is one write, so a reader sees all of it or a last line without its end."""
    line = (json.dumps(row, default=str) + "\n").encode()

    def write() -> None:
        with path.open("ab") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                file.write(line)
                file.flush()
            except OSError:
                os.truncate(path, end)  # a full disk takes a part of a line
                raise

    patiently(write, path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def link(source: str, target: str) -> None:
    """A hard link where the file system has them: published files are never written again."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _new(old: Path) -> Path:
    return old.with_name(old.name.removeprefix(".").removesuffix(".old"))


def replace_directory(staged: Path, target: Path) -> None:
    """Puts `staged` in the place of `target`. Killed at any point, `settled(target)` is a whole directory."""
    old = _old(target)

    def swap() -> None:
        if target.exists() and staged.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
        if staged.exists():
            os.replace(staged, target)

    patiently(swap, target)
    shutil.rmtree(old, ignore_errors=True)


def settled(target: Path) -> Path | None:
    """`target`, or what it replaced when the replacing was cut short, or None when there never was one."""
    if target.exists():
        return target
    return _old(target) if _old(target).exists() else None


def new_name(experiment: str) -> str:
    """The name of a new run of an experiment: its own, the time, and four digits against two in one second."""
    return f"{experiment}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class Trial:
    """One trial's directory. Each file has one writer: the conductor (params, status) or the trial (the rest)."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def params(self) -> dict[str, Any]:
        return read_json(self.path / "params.json") or {}

    @property
    def status(self) -> dict[str, Any]:
        return read_json(self.path / "status.json") or {"state": "pending"}

    @property
    def state(self) -> State:
        state: State = self.status["state"]
        return state

    @property
    def lineage(self) -> dict[str, Any]:
        return read_json(self.path / LINEAGE) or {}

    @property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.path / "manifest.json") or {}

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path | None:
        return settled(self.path / "checkpoint")

    @property
    def weights(self) -> Path | None:
        """The adapter (PEFT) or the model (safetensors) of the best evaluation so far."""
        return settled(self.path / "adapter") or settled(self.path / "model")

    @property
    def asked_to_leave(self) -> str | None:
        """Why the trial should save where it stands and leave its machine; None while it may stay."""
        asked = read_json(self.path / LEAVE)
        return asked["why"] if asked else None

    def ask_to_leave(self, why: str) -> None:
        """Says so to a trial in a process of its own."""
        write_json(self.path / LEAVE, {"why": why})

    def stays(self) -> None:
        """What was asked of the trial on another machine is over."""
        (self.path / LEAVE).unlink(missing_ok=True)

    def metrics(self) -> list[dict[str, Any]]:
        return read_rows(self.metrics_path)

    def evaluations(self, metric: str) -> list[dict[str, Any]]:
        """The rows that hold a finite `metric`, in order."""
        return [row for row in self.metrics() if math.isfinite(row.get(metric, math.nan))]

    def set_state(self, state: State, reason: str | None = None) -> None:
        """Moves the trial to a state; `reason` is a sentence for a person."""
        write_json(self.path / "status.json", {"state": state, "reason": reason, "time": time.time()})

    def sweep_up(self) -> int:
        """Removes what killed processes have left half written; returns how many bytes that frees."""
        orphans = [each for each in self.path.glob(".*") if settled(_new(each)) != each]
        freed = 0
        for each in orphans:
            freed += sum(file.stat().st_size for file in (each, *each.rglob("*")) if file.is_file())
            shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink(missing_ok=True)
        return freed

    def forget_after(self, step: int) -> None:
        """Drops the metrics of steps after `step`: they are about to be trained again."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        write_text(self.metrics_path, "".join(json.dumps(row, default=str) + "\n" for row in rows))


@dataclass(frozen=True)
class Run:
    """One run's directory."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @classmethod
    def create(
        cls,
        storage: str | Path,
        name: str,
        yaml_text: str,
        resolved: dict[str, Any],
        directory: str | None = None,
    ) -> Run:
        """A new directory `<storage>/<name>-<time>`, with the experiment as written and as resolved.

        `directory` is its name where that is fixed. Raises InputError where it cannot be made, or is there.
        """
        path = Path(storage).expanduser().absolute() / (directory or new_name(name))
        try:
            (path / "trials").mkdir(parents=True)
        except OSError as error:
            raise InputError(f"storage: cannot create {path}: {error.strerror}.") from error
        write_text(path / "experiment.yaml", yaml_text)
        write_json(path / "resolved.json", resolved)
        run = cls(path)
        run.log_event("created")
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run: its directory, or `<storage>/<name>` for the newest run of that name.

        Raises InputError, with the nearest name beside it, when there is none.
        """
        path = Path(path).expanduser().absolute()
        if (path / "resolved.json").is_file():
            return cls(path)
        beside = sorted(each.parent.name for each in path.parent.glob("*/resolved.json"))
        same = [name for name in beside if STAMP.sub("", name) == path.name]
        if same:
            return cls(path.parent / same[-1])
        raise InputError(f"{path} is no run directory (it has no resolved.json).{nearest(path.name, beside)}")

    @property
    def resolved(self) -> dict[str, Any]:
        resolved: dict[str, Any] = read_json(self.path / "resolved.json")
        return resolved

    def trial(self, trial_id: str) -> Trial:
        return Trial(self.path / "trials" / trial_id)

    def trials(self) -> list[Trial]:
        """The trials by id, without the base."""
        found = [Trial(path) for path in sorted((self.path / "trials").glob("[!.]*")) if path.is_dir()]
        return [trial for trial in found if trial.id != BASE]

    def new_trial(self) -> Trial:
        """The directory of one more trial: 000 (`FIRST`), 001, ... in the order in which they were proposed."""
        names = [each.name for each in os.scandir(self.path / "trials") if each.name.isdigit()]
        for number in itertools.count(len(names)):
            trial = self.trial(f"{number:03d}")
            with contextlib.suppress(FileExistsError):
                trial.path.mkdir()
                return trial
        raise AssertionError("unreachable")

    @property
    def added(self) -> int:
        """How many trials a person has added to what the experiment says."""
        return sum(event["count"] for event in self.events() if event["event"] == "trials_added")

    @property
    def conducted(self) -> bool:
        """Whether a driver is at work on it."""
        try:
            with self.locked():
                return False
        except FtlibError:
            return True

    def log_event(self, kind: str, **details: Any) -> None:
        """Adds who started, stopped or failed, and when, to `events.jsonl`."""
        append_row(self.path / "events.jsonl", {"time": time.time(), "event": kind, **details})

    def events(self) -> list[dict[str, Any]]:
        return read_rows(self.path / "events.jsonl")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process conducts a run. The kernel frees the lock when its holder dies."""
        with (self.path / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise FtlibError(
                    f"{self.path} is being run by process {file.read().strip()}: wait, or stop it."
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
