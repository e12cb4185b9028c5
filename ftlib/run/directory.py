"""The run directory: the whole truth of one execution, and the seam between training and everything after it.

`layout` has the names of its files. Everything can be read with `cat`. Every file is written to a temporary name,
brought to the disk and renamed; a directory is replaced by two renames, and a reader that finds it half way takes the
old one. What is read may be another's, or damaged: it is checked, and an error names the trial and the file.
"""

from __future__ import annotations

import contextlib
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
from typing import Any, Literal, TypeGuard, get_args

from ftlib.config.objectives import Constraint, constraints
from ftlib.errors import FtlibError, InputError, nearest
from ftlib.files.atomic import settled, target_of, write_json, write_text
from ftlib.files.json_files import append_row, damaged, read_json, read_rows
from ftlib.files.locks import lock
from ftlib.run import manifest
from ftlib.run.layout import (
    ADAPTER,
    BASE,
    CHECKPOINT,
    EVENTS,
    EXPERIMENT,
    LEAVE,
    LINEAGE,
    LOCK,
    MANIFEST,
    METRICS,
    MODEL,
    PARAMS,
    POINT,
    RESOLVED,
    STATUS,
    TRIALS,
)

State = Literal["pending", "running", "finished", "stopped", "failed", "preempted"]
ENDED: tuple[State, ...] = ("finished", "stopped", "failed")
STAMP = re.compile(r"-\d{8}-\d{6}-[0-9a-f]{4}$")  # what a run's directory adds to its experiment's name
ALL_ROWS = "all_rows"  # the key of the row of metrics.jsonl that says what the kept weights are worth on all rows
NUMBERS = ("tokens", "seconds", "progress", "epoch", "time")  # of a row of metrics.jsonl


def new_name(experiment: str) -> str:
    """The name of a new run of an experiment: its own, the time, and four digits against two in one second."""
    return f"{experiment}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_objective(told: Any) -> TypeGuard[list[Any]]:
    return isinstance(told, list) and len(told) == 2 and isinstance(told[0], str) and told[1] in ("min", "max")


@dataclass(frozen=True)
class Trial:
    """One trial's directory. Each file has one writer: the driver (params, status) or the trial (the rest)."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def params(self) -> dict[str, Any]:
        return read_json(self.path / PARAMS, dict) or {}

    @property
    def status(self) -> dict[str, Any]:
        file = self.path / STATUS
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
        origins = (told.get("cloned_from"), told.get("replica_of"))
        if all(isinstance(origin, str | None) for origin in origins) and isinstance(told.get("changed"), dict | None):
            return told
        raise damaged(self.path / LINEAGE, "it holds no lineage")

    @property
    def manifest(self) -> dict[str, Any]:
        file = self.path / MANIFEST
        told = read_json(file)
        if told is not None and (why := manifest.why_none(told)):
            raise damaged(file, why)
        return told or {}

    @property
    def measures(self) -> dict[str, Any]:
        """What is known of the trial and is no number of an evaluation (`ftlib.config.objectives.MEASURES`)."""
        rows = self.metrics()
        found = {"trainable_parameters": self.manifest.get("trainable_parameters")}
        return found | ({"seconds": rows[-1]["seconds"]} if rows else {})

    @property
    def metrics_path(self) -> Path:
        return self.path / METRICS

    @property
    def checkpoint(self) -> Path | None:
        return settled(self.path / CHECKPOINT)

    @property
    def weights(self) -> Path | None:
        """The adapter (PEFT) or the model (safetensors) of the best evaluation so far."""
        return settled(self.path / ADAPTER) or settled(self.path / MODEL)

    @property
    def asked_to_leave(self) -> str | None:
        """Why the trial should save where it stands and leave its machine; None while it may stay."""
        asked = read_json(self.path / LEAVE, dict)
        return str(asked.get("why")) if asked else None

    def ask_to_leave(self, why: str) -> None:
        """Asks a trial that runs in another process to leave its machine."""
        write_json(self.path / LEAVE, {"why": why})

    def stays(self) -> None:
        """Withdraws what was asked of the trial on another machine."""
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

    @property
    def on_all_rows(self) -> dict[str, Any] | None:
        """What the kept weights are worth on all held-out rows, of a trial that was compared on a part of them; None
        where it did not come to its end."""
        rows = [row for row in self.metrics() if ALL_ROWS in row]
        if not rows:
            return None
        told = rows[-1][ALL_ROWS]
        if not isinstance(told, dict):
            raise damaged(self.metrics_path, f"at step {rows[-1]['step']} its {ALL_ROWS} is no mapping")
        return {name: value for name, value in told.items() if isinstance(value, list) or _is_finite(value)}

    def set_state(self, state: State, reason: str | None = None) -> None:
        """Moves the trial to a state; `reason` is a sentence for a person."""
        write_json(self.path / STATUS, {"state": state, "reason": reason, "time": time.time()})

    def sweep_up(self) -> int:
        """Removes what killed processes have left half written; returns how many bytes that frees."""
        orphans = [entry for entry in self.path.glob(".*") if settled(target_of(entry)) != entry]
        freed = 0
        for orphan in orphans:
            freed += sum(file.stat().st_size for file in (orphan, *orphan.rglob("*")) if file.is_file())
            shutil.rmtree(orphan, ignore_errors=True) if orphan.is_dir() else orphan.unlink(missing_ok=True)
        return freed

    def forget_after(self, step: int) -> None:
        """Drops the metrics of steps after `step`: they are about to be trained again."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        write_text(self.metrics_path, "".join(json.dumps(row, default=str) + "\n" for row in rows))


@dataclass(frozen=True)
class Run:
    """The directory of one run."""

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
            (path / TRIALS).mkdir(parents=True)
        except OSError as error:
            raise InputError(f"storage: cannot create {path}: {error.strerror}.") from error
        write_text(path / EXPERIMENT, yaml_text)
        write_json(path / RESOLVED, resolved)
        run = cls(path)
        run.log_event("created")
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run: its directory, or `<storage>/<name>` for the newest run of that name.

        Raises InputError, with the nearest name beside it, when there is none.
        """
        path = Path(path).expanduser().absolute()
        if (path / RESOLVED).is_file():
            return cls(path)
        beside = sorted(file.parent.name for file in path.parent.glob(f"*/{RESOLVED}"))
        same = [name for name in beside if STAMP.sub("", name) == path.name]
        if same:
            return cls(path.parent / same[-1])
        raise InputError(f"{path} is no run directory (it has no {RESOLVED}).{nearest(path.name, beside)}")

    @property
    def resolved(self) -> dict[str, Any]:
        resolved: dict[str, Any] | None = read_json(self.path / RESOLVED, dict)
        file = self.path / RESOLVED
        if resolved is None or not isinstance(resolved.get("experiment", {}), dict):
            raise damaged(file, "it is gone" if resolved is None else "it holds no experiment")
        return resolved

    @property
    def data_versions(self) -> dict[str, dict[str, str]]:
        """The versions of data in the registry that the run is of, with their hashes, by the keys that name them."""
        data = self.resolved.get("data")
        found = data.get("versions") if isinstance(data, dict) else None
        return found if isinstance(found, dict) and manifest.are_versions(found) else {}

    @property
    def experiment(self) -> dict[str, Any]:
        """The experiment, with all defaults."""
        told = self.resolved.get("experiment")
        if not told:
            raise damaged(self.path / RESOLVED, "it holds no experiment")
        return dict(told)

    @property
    def objective(self) -> tuple[str, str]:
        """The metric that its trials are compared by, and `min` or `max`."""
        told = self.resolved.get("objective")
        if _is_objective(told):
            return told[0], told[1]
        raise damaged(self.path / RESOLVED, "it holds no objective")

    @property
    def objectives(self) -> list[tuple[str, str]]:
        """Each metric that its trials are compared by, the first being `objective`, and `min` or `max`."""
        told = self.resolved.get("objectives")
        if told is None:
            return [self.objective]
        if isinstance(told, list) and told and all(map(_is_objective, told)):
            return [(name, mode) for name, mode in told]
        raise damaged(self.path / RESOLVED, "its objectives are none")

    @property
    def constraints(self) -> list[Constraint]:
        """The bounds that its trials must keep."""
        sweep = self.resolved.get("experiment", {}).get("sweep")
        told = sweep.get("constraints") if isinstance(sweep, dict) else None
        try:
            return constraints(told or {})
        except (ValueError, TypeError, AttributeError):
            raise damaged(self.path / RESOLVED, "its constraints are none") from None

    @property
    def judged_by(self) -> tuple[str, ...]:
        """Every metric that its trials are judged by: those that they are compared by, and those with a bound."""
        named = (*(name for name, _ in self.objectives), *(bound.metric for bound in self.constraints))
        return tuple(dict.fromkeys(named))

    def trial(self, trial_id: str) -> Trial:
        return Trial(self.path / TRIALS / trial_id)

    def trials(self) -> list[Trial]:
        """The trials by id, without the base."""
        found = [Trial(path) for path in sorted((self.path / TRIALS).glob("[!.]*")) if path.is_dir()]
        return [trial for trial in found if trial.id != BASE]

    def unfinished(self) -> list[Trial]:
        """The trials that a `resume` would go on with."""
        return [trial for trial in self.trials() if trial.state not in ENDED]

    def new_trial(self) -> Trial:
        """The directory of one more trial: 000 (`FIRST`), 001, ... in the order in which they were proposed."""
        names = [entry.name for entry in os.scandir(self.path / TRIALS) if entry.name.isdigit()]
        for number in itertools.count(len(names)):
            trial = self.trial(f"{number:03d}")
            with contextlib.suppress(FileExistsError):
                trial.path.mkdir()
                return trial
        raise AssertionError("unreachable")

    @property
    def added(self) -> int:
        """How many trials a person has added to what the experiment says, without those that a terminator has left
        out."""
        counts = {"trials_added": 1, "terminated": -1}
        return sum(counts[event["event"]] * event["count"] for event in self.events() if event["event"] in counts)

    @property
    def conducted(self) -> bool:
        """Whether a driver is working on the run."""
        try:
            with lock(self.path / LOCK, wait=False):
                return False
        except BlockingIOError:
            return True

    def log_event(self, kind: str, **details: Any) -> None:
        """Adds who started, stopped or failed, and when, to `events.jsonl`."""
        append_row(self.path / EVENTS, {"time": time.time(), "event": kind, **details})

    def events(self) -> list[dict[str, Any]]:
        """Raises FtlibError for an event without its name or its time."""
        file = self.path / EVENTS
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
        """Within, this process is the run's only driver. The kernel frees the lock when the process dies."""
        try:
            held = contextlib.ExitStack()
            file = held.enter_context(lock(self.path / LOCK, wait=False))
        except BlockingIOError:
            holder = (self.path / LOCK).read_text(encoding="utf-8", errors="replace")[:80].strip()
            raise FtlibError(f"{self.path} is being run by process {holder}: wait, or stop it.") from None
        with held:
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
