"""The run directory: the whole truth of one execution, and the seam between training and everything after it.

    <storage>/<name>-<time>/
      experiment.yaml  resolved.json  events.jsonl  leaderboard.csv
      tune/                                Ray Tune's own state
      trials/<id>/  params.json   the point of the space        status.json  where it stands, and why
                    metrics.jsonl one row per log and evaluation manifest.json what the weights are
                    checkpoint/   the latest position            adapter/ or model/  the best weights so far

Everything can be read with `cat`. Every file is written to a temporary name, brought to the disk and renamed; a directory
is replaced by two renames, and a reader that finds it half way takes the old one. What is read may be another's, or
damaged: it is checked, and an error names the trial and the file.
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
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ftlib import manifest
from ftlib.errors import FtlibError, InputError, nearest
from ftlib.storage.patience import patiently

State = Literal["pending", "running", "finished", "stopped", "failed", "preempted"]
ENDED: tuple[State, ...] = ("finished", "stopped", "failed")
PACK_FILE = "pack.json"  # that its trials are in packs, what was measured, and what is promised of them
BASE = "base"  # the id under which the untuned base is evaluated
STAMP = re.compile(r"-\d{8}-\d{6}-[0-9a-f]{4}$")  # what a run's directory adds to its experiment's name
LINEAGE = "lineage.json"  # in a trial's directory: what a person has done to it, and whose clone it is
POINT = "point.json"  # in a trial's directory: the point as it was proposed, ratios unresolved
LEAVE = "leave.json"  # in a trial's directory: that it should leave its machine, and why
FIRST = "000"  # the id of the first trial
NUMBERS = ("tokens", "seconds", "progress", "epoch", "time")  # of a row of metrics.jsonl
JSON_BYTES = 64 * 2**20  # of one file: far above any, far below a memory
ROWS_BYTES = 4 * 2**30  # of a file of rows


def home() -> Path:
    """Where the registry and the caches live: `$FTLIB_HOME`, or `~/.ftlib`."""
    return Path(os.environ.get("FTLIB_HOME") or Path.home() / ".ftlib").expanduser().absolute()


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Writes a whole file or nothing of it, also when the power goes: the new content is on the disk before its name is.
    `mode` is less the umask. Raises StorageError where that is not possible for a minute."""
    staged = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.unlink(missing_ok=True)  # of a try before
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)

    patiently(write, path)


def write_json(path: Path, value: Any) -> None:
    """Writes a whole JSON file or nothing of it."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def to_disk(folder: Path) -> None:
    """Brings a directory's names to the disk, and with them a rename in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def all_to_disk(folder: Path) -> None:
    """Brings all files of a directory to the disk, and the directory itself."""
    for each in folder.rglob("*"):
        if each.is_file():
            with each.open("rb") as file:
                os.fsync(file.fileno())
        elif each.is_dir():
            to_disk(each)
    to_disk(folder)


def damaged(path: Path, why: str) -> FtlibError:
    """What is said of a file that cannot be what ftlib wrote: its trial, the file, and what is wrong."""
    parts = path.parts
    at = max((place for place, part in enumerate(parts[:-1]) if part == "trials"), default=None)
    owner = f"trial {parts[at + 1]}: " if at is not None and at + 2 < len(parts) else ""
    return FtlibError(f"{owner}{path} is damaged ({why}): put a whole one back, or do without that run or trial.")


def _bytes_of(path: Path, most: int = JSON_BYTES) -> bytes | None:
    """What is in a file, None where there is none. Raises FtlibError for what is no file, or too large to be read."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise damaged(path, "it is no file")
        if about.st_size > most:
            raise damaged(path, f"it has more than {most:,} bytes")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse_json(content: bytes) -> Any:
    """The value of JSON from anywhere. Raises ValueError, with a few words, for what is none."""
    if not content.strip(b" \t\r\n\0"):
        raise ValueError("it is empty" if not content.strip() else "it holds NUL bytes alone")
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it holds NUL bytes" if b"\0" in content else "it is no JSON, or was cut short") from None


def read_json(path: Path, kind: type = object) -> Any:
    """The JSON in a file, or None when there is none. Raises FtlibError, naming trial and file, for a damaged one; with
    `kind=dict`, also for what is no mapping."""
    content = _bytes_of(path)
    if content is None:
        return None
    try:
        value = parse_json(content)
    except ValueError as error:
        raise damaged(path, str(error)) from None
    if not isinstance(value, kind):
        raise damaged(path, "it holds no mapping")
    return value


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds one JSON line. A line is one write, so a reader sees all of it or a last line without its end, which the next
    line takes the place of. Never through a link: it could lead to any file."""
    line = (json.dumps(row, default=str) + "\n").encode()

    def write() -> None:
        with open(_no_link(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "r+b", buffering=0) as file:
            with contextlib.suppress(OSError):  # where there are no locks, one write is one line all the same
                fcntl.flock(file, fcntl.LOCK_EX)
            end = _end_of_lines(file)
            try:
                file.write(line)
            except OSError:
                os.truncate(path, end)  # a full disk takes a part of a line
                raise

    patiently(write, path)


def _end_of_lines(file: Any) -> int:
    """Where the last whole line ends. What a kill, or the power, has left after it is cut off."""
    size: int = file.seek(0, os.SEEK_END)
    end = size
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(file.fileno(), end)
    return end


def _no_link(path: Path, flags: int) -> int:
    """Opens a plain file for writing. Raises FtlibError for a link, a second name of another file, and what is no file."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise FtlibError(f"{path} is a symbolic link, and nothing is written through one: remove it.") from None
        raise error
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise FtlibError(f"{path} is no plain file of its own (a second name of another, or a device): remove it.")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; a last line cut short by a kill is left out. Raises FtlibError, with the number of the
    line, for any other that is damaged."""
    content = _bytes_of(path, ROWS_BYTES)
    lines = (content or b"").split(b"\n")[:-1]
    return [_row(path, number, line) for number, line in enumerate(lines, 1) if line]


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise damaged(path, f"line {number}: {error}") from None
    if not isinstance(row, dict):
        raise damaged(path, f"line {number}: it holds no mapping")
    return row


@contextlib.contextmanager
def lock(path: Path, wait: bool = True) -> Iterator[Any]:
    """The kernel's lock on a file, which is freed when its holder dies; gives the file, which nobody has written to yet.

    Raises BlockingIOError where it is held and `wait` is false, and FtlibError for a link: it could lead to any file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(_no_link(path, os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8", errors="replace") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


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
    """Puts `staged` in the place of `target`. Killed at any point, or without power, `settled(target)` is a whole
    directory; when this returns, the new one is on the disk."""
    old = _old(target)

    def swap() -> None:
        if staged.exists():
            all_to_disk(staged)
        if target.exists() and staged.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
        if staged.exists():
            os.replace(staged, target)
        to_disk(target.parent)

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
        return read_json(self.path / "params.json", dict) or {}

    @property
    def status(self) -> dict[str, Any]:
        file = self.path / "status.json"
        told: dict[str, Any] = read_json(file, dict) or {"state": "pending"}
        if told.get("state") not in get_args(State):
            raise damaged(file, "it holds no state")
        if not isinstance(told.get("reason"), str | None):
            raise damaged(file, "its reason is no text")
        return told

    @property
    def state(self) -> State:
        state: State = self.status["state"]
        return state

    @property
    def lineage(self) -> dict[str, Any]:
        told = read_json(self.path / LINEAGE, dict) or {}
        if isinstance(told.get("cloned_from"), str | None) and isinstance(told.get("changed"), dict | None):
            return told
        raise damaged(self.path / LINEAGE, "it holds no lineage")

    @property
    def manifest(self) -> dict[str, Any]:
        file = self.path / "manifest.json"
        told = read_json(file)
        if told is not None and (why := manifest.why_none(told)):
            raise damaged(file, why)
        return told or {}

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
        asked = read_json(self.path / LEAVE, dict)
        return str(asked.get("why")) if asked else None

    def ask_to_leave(self, why: str) -> None:
        """Says so to a trial in a process of its own."""
        write_json(self.path / LEAVE, {"why": why})

    def stays(self) -> None:
        """What was asked of the trial on another machine is over."""
        (self.path / LEAVE).unlink(missing_ok=True)

    def metrics(self) -> list[dict[str, Any]]:
        """Raises FtlibError for a row without a step, or with a count that is no number."""
        rows = read_rows(self.metrics_path)
        for number, row in enumerate(rows, 1):
            if not isinstance(row.get("step"), int):
                raise damaged(self.metrics_path, f"row {number} has no step")
            for name in NUMBERS:
                if not isinstance(row.get(name, 0), int | float):
                    raise damaged(self.metrics_path, f"row {number}: its {name} is no number")
        return rows

    def evaluations(self, metric: str) -> list[dict[str, Any]]:
        """The rows that hold a finite `metric`, in order."""
        rows = [row for row in self.metrics() if row.get(metric) is not None]
        wrong = [row for row in rows if not isinstance(row[metric], int | float)]
        if wrong:
            raise damaged(self.metrics_path, f"at step {wrong[0]['step']} its {metric} is no number")
        return [row for row in rows if math.isfinite(row[metric])]

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
        resolved: dict[str, Any] | None = read_json(self.path / "resolved.json", dict)
        file = self.path / "resolved.json"
        if resolved is None or not isinstance(resolved.get("experiment", {}), dict):
            raise damaged(file, "it is gone" if resolved is None else "it holds no experiment")
        return resolved

    @property
    def experiment(self) -> dict[str, Any]:
        """The experiment, with all defaults."""
        told = self.resolved.get("experiment")
        if not told:
            raise damaged(self.path / "resolved.json", "it holds no experiment")
        return dict(told)

    @property
    def objective(self) -> tuple[str, str]:
        """The metric that its trials are compared by, and `min` or `max`."""
        told = self.resolved.get("objective")
        if isinstance(told, list) and len(told) == 2 and isinstance(told[0], str) and told[1] in ("min", "max"):
            return told[0], told[1]
        raise damaged(self.path / "resolved.json", "it holds no objective")

    def trial(self, trial_id: str) -> Trial:
        return Trial(self.path / "trials" / trial_id)

    def trials(self) -> list[Trial]:
        """The trials by id, without the base."""
        found = [Trial(path) for path in sorted((self.path / "trials").glob("[!.]*")) if path.is_dir()]
        return [trial for trial in found if trial.id != BASE]

    def unfinished(self) -> list[Trial]:
        """The trials that a `resume` would go on with."""
        return [trial for trial in self.trials() if trial.state not in ENDED]

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
            with lock(self.path / ".lock", wait=False):
                return False
        except BlockingIOError:
            return True

    def log_event(self, kind: str, **details: Any) -> None:
        """Adds who started, stopped or failed, and when, to `events.jsonl`."""
        append_row(self.path / "events.jsonl", {"time": time.time(), "event": kind, **details})

    def events(self) -> list[dict[str, Any]]:
        """Raises FtlibError for an event without its name or its time."""
        file = self.path / "events.jsonl"
        rows = read_rows(file)
        for number, row in enumerate(rows, 1):
            if not isinstance(row.get("event"), str) or not isinstance(row.get("time"), int | float):
                raise damaged(file, f"event {number} has no name or no time")
        return rows

    def check(self) -> None:
        """Reads all that a person or a later command reads of the run. Raises FtlibError for the first damaged file."""
        _ = self.resolved, self.events()
        for trial in [self.trial(BASE), *self.trials()]:
            _ = trial.status, trial.params, trial.lineage, trial.manifest, trial.metrics()
            read_json(trial.path / POINT, dict)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process conducts a run. The kernel frees the lock when its holder dies."""
        try:
            held = contextlib.ExitStack()
            file = held.enter_context(lock(self.path / ".lock", wait=False))
        except BlockingIOError:
            holder = (self.path / ".lock").read_text(encoding="utf-8", errors="replace")[:80].strip()
            raise FtlibError(f"{self.path} is being run by process {holder}: wait, or stop it.") from None
        with held:
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
