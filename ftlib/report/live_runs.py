"""The runs of a folder as the live page is told of them: read again only where their files have changed.

A run can be anyone's, and half written. One that cannot be read is told of with the reason, beside the others.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError, InputError, nearest
from ftlib.files.paths import below, why_no_name
from ftlib.report.live_pipelines import pipelines_of
from ftlib.report.words import number
from ftlib.run.cost import SESSION
from ftlib.run.directory import ENDED, Run, Trial
from ftlib.run.layout import (
    EVALUATION,
    EVENTS,
    LINEAGE,
    LOCK,
    METRICS,
    PARAMS,
    REPORT,
    RESOLVED,
    STATUS,
    TRIALS,
)
from ftlib.run.leaderboard import Leaderboard, leaderboard
from ftlib.run.plain_text import one_line
from ftlib.run.storage_copy import FRESH, is_fresh, source_of
from ftlib.run.watch import worked

PIPELINES = "pipelines"  # as `storage` of a pipeline says, unless another folder is given
OF_RUN, OF_TRIAL = (RESOLVED, EVENTS, EVALUATION, REPORT), (PARAMS, STATUS, LINEAGE, METRICS)
REST = 10  # a run that takes a second to read is read again after so many: a tenth of a core, however large it is
KEPT = 5000  # answers that are kept, a few kilobytes each
WHY = {
    "interrupted": "it was interrupted: ftlib resume goes on with it",
    "broken off": "no process of this machine is at work on it: ftlib resume goes on with it",
}
WHY_AT_URL = {
    "interrupted": WHY["interrupted"],
    "broken off": f"nothing of it has changed for {FRESH:.0f} s: its driver is gone, or a step takes long",
}

Told = dict[str, Any]
Stamp = tuple[Any, ...]


@dataclass(frozen=True)
class ReadOnce(Trial):
    """A trial whose metrics are read once, though several parts of an answer ask for them."""

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return super().metrics()

    def metrics(self) -> list[dict[str, Any]]:
        """As of the first call."""
        return self._rows


@dataclass(frozen=True)
class Still(Run):
    """A run for one answer."""

    @cached_property
    def _read(self) -> dict[str, ReadOnce]:
        return {}

    def trial(self, trial_id: str) -> Trial:
        """The same object for the same trial."""
        return self._read.setdefault(trial_id, ReadOnce(self.path / TRIALS / trial_id))

    def trials(self) -> list[Trial]:
        """As of now."""
        return [self.trial(trial.id) for trial in super().trials()]


@dataclass(frozen=True)
class Look:
    """An answer, what the files were when it was made, and how long it took."""

    stamp: Stamp
    told: bytes
    seconds: float
    at: float


class Runs:
    """The runs of a folder, or of a URL of which the folder is a copy. Several threads may ask. `pipelines` is the
    folder of pipelines, unless it is the one beside the runs."""

    def __init__(self, folder: Path, url: str | None = None, pipelines: Path | None = None) -> None:
        self.folder, self.url = folder.absolute(), url
        self.pipelines = (pipelines or self.folder.parent / PIPELINES).absolute()
        self._looks: dict[tuple[Any, ...], Look] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Of folders that are runs, the newest first; a link is none, since it leads out of the folder."""
        found = [entry for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)]
        dated = [(mark[0], entry.name) for entry in found if (mark := _mark(Path(entry.path, RESOLVED)))]
        return [name for _, name in sorted(dated, reverse=True)]

    def find(self, name: str) -> Run:
        """The run of that name. Raises InputError where the folder has none."""
        if why_no_name(name) is None and "/" not in name:
            run = Run(below(self.folder, name, str(self.folder)))
            if (run.path / RESOLVED).is_file():
                return run
        raise InputError(f"{self.folder} has no run '{one_line(name)[:80]}'.{nearest(name[:200], self.names())}")

    def overview(self) -> bytes:
        """JSON: the folder, a summary of each run, and the pipelines with their steps."""
        told = [self._of_one(name) for name in self.names()]
        pipelines = [] if self.url is not None else pipelines_of(self.pipelines, self.folder)
        return b'{"folder":%s,"runs":[%s],"pipelines":%s}' % (
            json.dumps(one_line(self.url or str(self.folder))).encode(),
            b",".join(told),
            json.dumps(pipelines, allow_nan=False).encode(),
        )

    def look(self, runs: list[Run], tell: Callable[..., Told]) -> bytes:
        """JSON: what `tell` says of these runs; from before where nothing has changed, or it was long to make."""
        key = (tell, *(run.name for run in runs))
        with self._lock:
            stamp, last = tuple(map(stamp_of, runs)), self._looks.pop(key, None)
            began = time.monotonic()
            if last is None or (last.stamp != stamp and began - last.at > REST * last.seconds):
                told = _dumped(runs, tell)
                last = Look(stamp, told, time.monotonic() - began, time.monotonic())
            self._looks[key] = last  # the newest stands last
            while len(self._looks) > KEPT:
                del self._looks[next(iter(self._looks))]
            return last.told

    def _of_one(self, name: str) -> bytes:
        why = why_no_name(name)
        if why is not None:
            return json.dumps({"name": one_line(name), "damaged": f"its name {why}: rename its folder"}).encode()
        return self.look([Run(self.folder / name)], summary)


def _dumped(runs: list[Run], tell: Callable[..., Told]) -> bytes:
    try:
        return json.dumps(tell(*(Still(run.path) for run in runs)), allow_nan=False, separators=(",", ":")).encode()
    except FtlibError as error:
        why = str(error)
    except Exception as error:  # whatever stands in a run: the page lives on
        why = f"it cannot be read ({type(error).__name__}: {str(error)[:200]})"
    return json.dumps({"name": " and ".join(run.name for run in runs), "damaged": one_line(why)}).encode()


def stamp_of(run: Run) -> Stamp:
    """What changes when any file of a run does that the page tells of."""
    files = [run.path / name for name in OF_RUN]
    try:
        trials = sorted(os.scandir(run.path / TRIALS), key=lambda entry: entry.name)
    except OSError:
        trials = []
    files += [Path(trial.path, name) for trial in trials for name in OF_TRIAL]
    return (is_conducted(run), source_of(run) is not None and is_fresh(run), *map(_mark, files))


def _mark(file: Path) -> Stamp | None:
    try:
        about = os.stat(file)
    except (OSError, ValueError):
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def is_conducted(run: Run) -> bool:
    """Whether a driver is at work on it, as far as this machine sees. Makes no file."""
    try:
        return (run.path / LOCK).exists() and run.conducted
    except (OSError, FtlibError):
        return False


def summary(run: Run, board: Leaderboard | None = None) -> Told:
    """A line about a run. Raises FtlibError for a damaged file."""
    board, events, trials = board or leaderboard(run), run.events(), run.trials()
    experiment, state = run.resolved.get("experiment", {}), state_of(run, events)
    counts = Counter(row.state for row in board.rows)
    total = max(_planned(experiment) + run.added, len(trials))
    best = board.best
    base = board.base_beside(best) if best else board.base.value if board.base else None
    return {
        "name": run.name,
        "title": one_line(str(experiment.get("name") or run.name)),
        "state": state,
        "why": (WHY if source_of(run) is None else WHY_AT_URL).get(state, ""),
        "metric": one_line(board.metric),
        "best": number(best.final) if best else "",
        "best_trial": one_line(best.trial) if best else "",
        "base": number(base) if base is not None else "",
        "gain": board.gained(best) if best else "",
        "done": sum(counts[ended] for ended in ENDED),
        "total": total,
        "share": round(min(1.0, max(0.0, worked(trials) / total)), 3) if total else 0.0,
        "counts": dict(counts),
        "started": _finite(events[0]["time"]) if events else None,
        "ended": _finite(events[-1]["time"]) if events and state != "running" else None,
        "report": (run.path / REPORT).is_file(),
    }


def state_of(run: Run, events: list[dict[str, Any]]) -> str:
    """`running`, `finished`, `interrupted`, `broken off`, or `not started`.

    Of a run at a URL nobody here sees the driver: it counts as running while it changes and has not ended.
    """
    if is_conducted(run):
        return "running"
    kinds = [event["event"] for event in events if event["event"] in (*SESSION, "ended", "interrupted")]
    if not kinds:
        return "not started"
    broken_off = "running" if source_of(run) is not None and is_fresh(run) else "broken off"
    return {"ended": "finished", "interrupted": "interrupted"}.get(kinds[-1], broken_off)


def _planned(experiment: dict[str, Any]) -> int:
    """How many trials the experiment says; at least as many as a grid has points."""
    match experiment.get("sweep"):
        case {"search": {"type": "grid"}, "space": dict(space)}:
            return math.prod(len(choices) for one in space.values() if (choices := _choices(one)))
        case {"num_samples": int(samples)}:
            return samples
    return 1


def _choices(dimension: Any) -> list[Any]:
    choices = dimension.get("choices") if isinstance(dimension, dict) else dimension
    return choices if isinstance(choices, list) else []


def _finite(seconds: float) -> float | None:
    return round(float(seconds), 1) if math.isfinite(seconds) else None
