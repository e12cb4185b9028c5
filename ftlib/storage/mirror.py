"""A run whose storage is a URL: written on the disks of the machines that compute it, and kept at the URL as it goes.

Each file has one writer, so each process carries its own files there and no two ever write one object. The driver
carries what the conductor writes, every few seconds and at the end; a trial carries its own directory after each
evaluation, before it reports it, so whoever stops the trial then, or takes over from a lost machine, finds all of it.

    <storage>/<run>/   the run directory, but for the directories that are replaced as wholes (`WHOLE`, `tune`):
                       <name>.<mark>/ holds one state of it, and index.json beside it says which one is meant. The new
                       state is written beside the old, then the index, and then the old one goes: an object store
                       renames nothing, and a reader always finds a whole directory.
    <storage>/.data/<hash>/   prepared data, once for all runs

A machine is known by the file FTLIB_HOME/machine: where an index was written by this one, the local files are the newest.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ftlib.cluster import signature
from ftlib.errors import FtlibError, InputError, TrialError, nearest
from ftlib.runs import BASE, LINEAGE, POINT, STAMP, Run, Trial, append_row, home, read_rows, settled, write_text
from ftlib.setting import Setting
from ftlib.storage import storage

WAITS = "storage.jsonl"  # of a trial: when it waited for the URL, and how long
WHOLE = ("checkpoint", "adapter", "model")  # of a trial
OF_TRIAL = ("metrics.jsonl", "manifest.json", "error.txt", WAITS)
OF_CONDUCTOR = ("params.json", "status.json", POINT, LINEAGE)
OF_RUN = (
    "experiment.yaml",
    "resolved.json",
    "events.jsonl",
    "leaderboard.csv",
    "report.html",
    "pack.json",
    "tracking.json",
)
TUNE = "tune"
INDEX = "index.json"
EVERY = 5.0  # seconds between two looks of the driver


def local_storage(place: str) -> str:
    """The folder in which runs of a storage are written: itself, or one of this machine where it is a URL."""
    return str(home() / "runs") if storage.is_url(place) else place


def url_of(run: Run) -> str | None:
    """Where a run is kept besides its directory; None where its directory is all."""
    place: str = run.resolved.get("experiment", {}).get("storage", "")
    return f"{place.rstrip('/')}/{run.name}" if storage.is_url(place) else None


@lru_cache(maxsize=1)
def _machine(folder: Path) -> str:
    """The name of this disk."""
    file = folder / "machine"
    if not file.exists():
        write_text(file, secrets.token_hex(8))
    return file.read_text(encoding="utf-8")


def this_machine() -> str:
    return _machine(home())


# --- directories that are replaced as wholes -----------------------------------------------------------------------


def _index(url: str) -> dict[str, Any]:
    content = storage.read(f"{url}/{INDEX}")
    index: dict[str, Any] = json.loads(content) if content else {"machine": None, "directories": {}}
    return index


def _push_directories(folder: Path, url: str, names: tuple[str, ...], signed: bool = False) -> None:
    """Brings the index of `url` to what `folder` holds now; `signed` where what is there will be unpickled."""
    index = _index(url)
    directories: dict[str, str] = dict(index["directories"]) if index["machine"] == this_machine() else {}
    for name in names:
        now = settled(folder / name)
        if now is None:
            continue
        marked = f"{name}.{now.stat().st_ino:x}-{_newest(now):x}"
        if directories.get(name) != marked:
            storage.put_folder(now, f"{url}/{marked}")
            directories[name] = marked
    told: dict[str, Any] = {"machine": this_machine(), "directories": directories}
    if signed:
        told["signatures"] = {name: signature.mac(url, signature.content_of(folder / name)) for name in directories}
    if told != index:
        storage.put_bytes(json.dumps(told).encode(), f"{url}/{INDEX}")
    found = {name.partition("/")[0] for name in storage.listing(url) if "/" in name}
    states = {name for name in found if name.partition(".")[0] in names}
    for gone in states - set(directories.values()):  # the one before, and what a kill has cut short
        storage.remove(f"{url}/{gone}")


def _newest(folder: Path) -> int:
    return max((file.stat().st_mtime_ns for file in folder.rglob("*")), default=folder.stat().st_mtime_ns)


def _pull_directories(url: str, folder: Path, names: tuple[str, ...]) -> None:
    directories = _index(url)["directories"]
    for name in names:
        if name in directories:
            storage.get_folder(f"{url}/{directories[name]}", folder / name)


# --- a trial, on whichever machine it is computed --------------------------------------------------------------------


def arrive(setting: Setting, trial_id: str | None = None) -> None:
    """Makes this machine hold what a trial needs: the prepared data, and the trial as another machine left it.

    Raises TrialError where the run directory is on another machine and no URL keeps it.
    """
    run = Run(Path(setting.run))
    url = _url(setting)
    if url is None:
        if not run.path.exists():
            raise TrialError(
                f"{run.path} is not on this machine: set storage to a URL that all nodes reach (s3://, gs://), or to a "
                "folder that they share."
            )
        return
    data = Path(setting.data)
    if not data.exists():
        with contextlib.suppress(
            FileNotFoundError
        ):  # what is not there is prepared again, or missed with its own words
            storage.get_folder(_data_url(setting.resolved["storage"], data), data)
    if trial_id is not None:
        _bring(run.trial(trial_id), url)


def _bring(trial: Trial, url: str) -> None:
    there = f"{url}/trials/{trial.id}"
    index = _index(there)
    trial.path.mkdir(parents=True, exist_ok=True)
    if index["machine"] is None or (index["machine"] == this_machine() and settled(trial.path / "checkpoint")):
        return
    for name in OF_TRIAL:
        with contextlib.suppress(FileNotFoundError):
            storage.get(f"{there}/{name}", trial.path / name)
    _pull_directories(there, trial.path, WHOLE)


def leave(setting: Setting, trial_id: str) -> None:
    """Carries a trial's directory to the URL: called before an evaluation is reported."""
    url = _url(setting)
    if url is None:
        return
    trial = Run(Path(setting.run)).trial(trial_id)
    there, began = f"{url}/trials/{trial_id}", time.time()
    away: list[str] = []
    with storage.telling(away.append):
        _push_directories(trial.path, there, WHOLE)
        for name in (*OF_TRIAL, *(OF_CONDUCTOR if trial_id == BASE else ())):
            if (trial.path / name).exists():
                storage.put(trial.path / name, f"{there}/{name}")
    if away:  # the driver makes an event of it
        append_row(trial.path / WAITS, {"time": began, "seconds": round(time.time() - began, 1), "why": away[0]})
        storage.put(trial.path / WAITS, f"{there}/{WAITS}")


def _url(setting: Setting) -> str | None:
    place: str = setting.resolved["storage"]
    return f"{place.rstrip('/')}/{Path(setting.run).name}" if storage.is_url(place) else None


def _data_url(place: str, data: Path) -> str:
    return f"{place.rstrip('/')}/.data/{data.name}"


# --- the run, in its driver --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mirrored(run: Run, data: Path, warn: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Keeps a run at its URL, and what its trials wrote elsewhere here, while the block lasts; gives what does it now.

    Raises FtlibError at once where the URL refuses. What fails later is warned of, and tried again.
    """
    url = url_of(run)
    if url is None:
        yield lambda: None
        return
    keeper = _Keeper(run, url)
    keeper.push()
    _keep_data(run.resolved["experiment"]["storage"], data)
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(EVERY):
            try:
                keeper.look()
            except (OSError, FtlibError) as error:
                warn(f"{url} is not kept up to date: {error}")

    thread = threading.Thread(target=loop, name="ftlib-mirror", daemon=True)
    thread.start()
    try:
        yield keeper.look
    finally:
        ended.set()
        thread.join(timeout=storage.PATIENCE)
        keeper.look()


@contextlib.contextmanager
def _still(folder: Path, tries: int = 20) -> Iterator[Path]:
    """A copy of a directory that is written all the time, at a moment at which it was not; its parent."""
    with tempfile.TemporaryDirectory() as parent:
        for left in range(tries, 0, -1):
            shutil.rmtree(Path(parent) / folder.name, ignore_errors=True)
            before = _newest(folder)
            with contextlib.suppress(OSError, shutil.Error):  # a file was replaced meanwhile
                shutil.copytree(folder, Path(parent) / folder.name)
                if _newest(folder) == before or left == 1:
                    break
            time.sleep(0.05)
        yield Path(parent)


def _keep_data(place: str, data: Path) -> None:
    url = _data_url(place, data)
    if storage.read(f"{url}/report.json") is None:
        for file in sorted(
            data.rglob("*"), key=lambda file: file.name == "report.json"
        ):  # the report last: it is whole
            if file.is_file():
                storage.put(file, f"{url}/{file.relative_to(data).as_posix()}")


class _Keeper:
    """Remembers what it has carried, so that a look costs one listing and what has changed."""

    def __init__(self, run: Run, url: str) -> None:
        self.run, self.url = run, url
        self.pushed: dict[str, tuple[int, int]] = {}
        self.pulled: dict[str, tuple[int, int]] = {}
        self.tune = 0
        self.waits: dict[str, int] = {}
        self.lock = threading.Lock()

    def look(self) -> None:
        with self.lock:
            self._pull()
            self._tell()
            self._push()

    def push(self) -> None:
        with self.lock:
            self._push()

    def _push(self) -> None:
        files = [self.run.path / name for name in OF_RUN]
        files += [trial.path / name for trial in self.run.trials() for name in OF_CONDUCTOR]
        for file in files:
            if not file.exists():
                continue
            name, state = file.relative_to(self.run.path).as_posix(), file.stat()
            mark = (state.st_size, state.st_mtime_ns)
            if self.pushed.get(name) != mark:
                storage.put(file, f"{self.url}/{name}")
                self.pushed[name] = mark
        tune = self.run.path / TUNE
        if tune.exists() and _newest(tune) != self.tune:
            self.tune = _newest(tune)
            with _still(tune) as copied:
                _push_directories(copied, self.url, (TUNE,), signed=True)

    def _tell(self) -> None:
        """An event for each time that a trial has waited for the URL."""
        for trial in self.run.trials():
            rows = read_rows(trial.path / WAITS)
            for row in rows[self.waits.get(trial.id, 0) :]:
                self.run.log_event("storage_unreachable", trial=trial.id, lost_seconds=row["seconds"], why=row["why"])
            self.waits[trial.id] = len(rows)

    def _pull(self) -> None:
        """What trials on other machines have written, but for what is as large as weights."""
        found = storage.listing(f"{self.url}/trials")
        elsewhere = {}
        for name, mark in sorted(found.items()):
            trial, _, rest = name.partition("/")
            if rest not in (*OF_TRIAL, *(OF_CONDUCTOR if trial == BASE else ())) or self.pulled.get(name) == mark:
                continue
            if trial not in elsewhere:
                elsewhere[trial] = _index(f"{self.url}/trials/{trial}")["machine"] not in (None, this_machine())
            if elsewhere[trial]:
                storage.get(f"{self.url}/trials/{name}", self.run.path / "trials" / name)
            self.pulled[name] = mark


# --- a run, from outside ------------------------------------------------------------------------------------------------


def open_run(place: str) -> Run:
    """A run by its path or its URL; from a URL it is brought here, without checkpoints and weights.

    Raises InputError, with the nearest name beside it, when there is none.
    """
    if not storage.is_url(place):
        return Run.open(place)
    storage.check_url("RUN", place)
    url = find(place.rstrip("/"))
    run = Run(home() / "runs" / url.rpartition("/")[2])
    if not _is_ours(run, url):
        fetch(url, run.path, whole=())
    return run


def _is_ours(run: Run, url: str) -> bool:
    """Whether this machine has conducted the run last, and has it still."""
    return (run.path / TUNE).exists() and _index(url)["machine"] == this_machine()


def find(url: str) -> str:
    """The URL of a run, or of the newest run of an experiment's name. Raises InputError when there is none."""
    if storage.read(f"{url}/resolved.json") is not None:
        return url
    above, _, name = url.rpartition("/")
    beside = sorted({path.partition("/")[0] for path in storage.listing(above)} - {".data"})
    same = [each for each in beside if STAMP.sub("", each) == name]
    if not same:
        raise InputError(f"{url} is no run (it has no resolved.json).{nearest(name, beside)}")
    return f"{above}/{same[-1]}"


def fetch(url: str, target: Path, whole: tuple[str, ...] = ("adapter", "model"), tune: bool = True) -> Run:
    """Brings a run from its URL into a directory; `whole` are the directories of trials that come too."""
    (target / signature.FILE).unlink(missing_ok=True)  # it was of what is replaced now
    trials = set()
    for name in storage.listing(url):
        inside = Path(name)
        if name in OF_RUN or (inside.parts[0] == "trials" and inside.name in (*OF_TRIAL, *OF_CONDUCTOR)):
            storage.get(f"{url}/{name}", target / name)
        if inside.parts[0] == "trials" and len(inside.parts) > 2:
            trials.add(inside.parts[1])
    (target / "trials").mkdir(parents=True, exist_ok=True)
    for trial in sorted(trials):
        _pull_directories(f"{url}/trials/{trial}", target / "trials" / trial, whole)
    run = Run(target)
    if tune:
        _pull_directories(url, target, (TUNE,))
        told = _index(url).get("signatures", {}).get(TUNE)
        if (target / TUNE).exists() and signature.matches(told, url, signature.content_of(target / TUNE)):
            signature.sign(run)  # what this user has written there is as good as written here
    return run


def forget(run: Run, trial: Trial) -> None:
    """Removes a trial's directory, here and at the URL: a later trial of its number must not find its checkpoint."""
    url = url_of(run)
    if url is not None:
        storage.remove(f"{url}/trials/{trial.id}")
    shutil.rmtree(trial.path, ignore_errors=True)


def bring_weights(run: Run, trial: Trial) -> None:
    """The trial's best weights, where they are only at the run's URL."""
    url = url_of(run)
    if url is not None and trial.weights is None:
        _pull_directories(f"{url}/trials/{trial.id}", trial.path, ("adapter", "model"))


__all__ = [
    "arrive",
    "bring_weights",
    "fetch",
    "find",
    "forget",
    "leave",
    "local_storage",
    "mirrored",
    "open_run",
    "url_of",
]
