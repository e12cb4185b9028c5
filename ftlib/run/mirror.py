"""A run whose storage is a URL: written on the disks of the machines that compute it, and kept at the URL as it goes.

Each file has one writer, so each process carries its own files there and no two ever write one object. The driver
carries what the conductor writes, every few seconds and at the end; a trial carries its own directory after each
evaluation, before it reports it, so whoever stops the trial then, or takes over from a lost machine, finds all of it.

    <storage>/<run>/   the run directory, but for the directories that are replaced as wholes (`WHOLE`, `tune`):
                       <name>.<mark>/ holds one state of it, and index.json beside it says which one is meant. The new
                       state is written beside the old, then the index, and then the old one goes: an object store
                       renames nothing, and a reader always finds a whole directory.
    <storage>/.data/<hash>-<content>/   prepared data, once for all runs; whoever brings it looks at its content

Who else can write to the bucket must not choose what runs: indexes are signed (`index.py`), and names from there become
paths in one place (`below.py`).

A machine is known by the file FTLIB_HOME/machine: where an index was written by this one, the local files are the
newest.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ftlib.errors import FtlibError, InputError, TrialError, nearest
from ftlib.files import object_store
from ftlib.files.atomic import settled, write_text
from ftlib.files.home import home
from ftlib.files.json_files import append_row, read_rows
from ftlib.files.paths import below
from ftlib.files.repeating import repeating
from ftlib.files.urls import is_url
from ftlib.run import signature
from ftlib.run.context import Setting
from ftlib.run.directory import STAMP, Run, Trial
from ftlib.run.index import Index, read_index, write_index
from ftlib.run.layout import (
    ADAPTER,
    BASE,
    CHECKPOINT,
    MODEL,
    OF_CONDUCTOR,
    OF_RUN,
    OF_TRIAL,
    TRIALS,
    TUNE,
    WAITS,
    WHOLE,
)

EVERY = 5.0  # seconds between two looks of the driver


def local_storage(place: str) -> str:
    """The folder in which runs of a storage are written: itself, or one of this machine where it is a URL."""
    return str(home() / "runs") if is_url(place) else place


def url_of(run: Run) -> str | None:
    """Where a run is kept besides its directory; None where its directory is all."""
    place = run.resolved.get("experiment", {}).get("storage", "")
    return f"{place.rstrip('/')}/{run.name}" if isinstance(place, str) and is_url(place) else None


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


def _push(folder: Path, url: str, names: tuple[str, ...], files: Mapping[str, Path], key: str = "") -> None:
    """Brings the place `url` to what `folder` holds now: these directories of it, and these files. What others have put
    into its index is not kept."""
    index = read_index(url, key)
    mine = index.machine == this_machine() and (index.signed or not key)
    directories, contents = (dict(index.directories), dict(index.contents)) if mine else ({}, {})
    for name in names:
        now = settled(folder / name)
        if now is None:
            continue
        marked = f"{name}.{now.stat().st_ino:x}-{_newest(now):x}"
        if directories.get(name) != marked:
            object_store.put_folder(now, f"{url}/{marked}")
            directories[name], contents[name] = marked, signature.content_of(now) if key else ""
    known = index.files if index.signed else {}
    told = Index(url, this_machine(), directories, contents, known)
    told = told.after({name: signature.digest_of(file) for name, file in files.items()} if key else {})
    if replace(told, signed=index.signed) != index:
        write_index(told, key)
    for name, file in files.items():
        object_store.put(file, f"{url}/{name}")
    if key and files:
        write_index(told.settled(files), key)
    found = {name.partition("/")[0] for name in object_store.listing(url) if "/" in name}
    states = {name for name in found if name.partition(".")[0] in names}
    for gone in states - set(directories.values()):  # the one before, and what a kill has cut short
        object_store.remove(f"{url}/{gone}")


def _newest(folder: Path) -> int:
    return max((file.stat().st_mtime_ns for file in folder.rglob("*")), default=folder.stat().st_mtime_ns)


def _pull_directories(url: str, folder: Path, names: tuple[str, ...], key: str = "") -> str | None:
    """Brings directories of a place; what keeps them from being believed, where one is not as its index has signed
    it."""
    index, doubts = read_index(url, key), []
    for name in names:
        if name not in index.directories:
            continue
        try:
            object_store.get_folder(f"{url}/{index.directories[name]}", folder / name)
            doubts.append(index.why_not_directory(name, folder / name))
        except FileNotFoundError:
            doubts.append(index.why_gone(name))
    return next(filter(None, doubts), None)


# --- a trial, on whichever machine it is computed --------------------------------------------------------------------


def download(setting: Setting, trial_id: str | None = None) -> None:
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
            _bring_data(setting, data)
    if trial_id is not None:
        _bring(run.trial(trial_id), url, setting)


def _bring_data(setting: Setting, data: Path) -> None:
    """Raises TrialError for prepared data that is not the driver's."""
    url = _data_url(setting.resolved["storage"], data, setting.data_content)
    with tempfile.TemporaryDirectory(dir=_made(data.parent)) as staged:
        came = Path(staged) / data.name
        object_store.get_folder(url, came)
        if setting.data_content and signature.content_of(came) != setting.data_content:
            raise TrialError(f"{url} is not the data that the driver has prepared: somebody changed it; remove it.")
        with contextlib.suppress(OSError):  # another process of this machine has brought it
            came.rename(data)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bring(trial: Trial, url: str, setting: Setting) -> None:
    """Raises TrialError for what nobody with the run's key has left there."""
    there = f"{url}/trials/{trial.id}"
    index = read_index(there, setting.key)
    trial.path.mkdir(parents=True, exist_ok=True)
    if not index.is_there or (index.machine == this_machine() and settled(trial.path / CHECKPOINT)):
        return
    doubts = []
    for name in OF_TRIAL:
        with contextlib.suppress(FileNotFoundError):
            object_store.get(f"{there}/{name}", trial.path / name)
        if name in index.files or (trial.path / name).exists():
            doubts.append(index.why_not_file(name, trial.path / name))
    doubts.append(_pull_directories(there, trial.path, WHOLE, setting.key))
    doubt = next(filter(None, doubts), None)
    if doubt and setting.key and not setting.trusted:
        shutil.rmtree(trial.path)
        raise TrialError(f"{doubt}: 'ftlib resume --trust' takes it all the same, if you know who has changed it.")


def upload(setting: Setting, trial_id: str) -> None:
    """Carries a trial's directory to the URL: called before an evaluation is reported."""
    url = _url(setting)
    if url is None:
        return
    trial = Run(Path(setting.run)).trial(trial_id)
    there, began = f"{url}/trials/{trial_id}", time.time()
    away: list[str] = []
    with object_store.telling(away.append):
        names = (*OF_TRIAL, *(OF_CONDUCTOR if trial_id == BASE else ()))
        _push(trial.path, there, WHOLE, {n: trial.path / n for n in names if (trial.path / n).exists()}, setting.key)
    if away:  # the driver makes an event of it
        append_row(trial.path / WAITS, {"time": began, "seconds": round(time.time() - began, 1), "why": away[0]})
        _push(trial.path, there, (), {WAITS: trial.path / WAITS}, setting.key)


def _url(setting: Setting) -> str | None:
    place: str = setting.resolved["storage"]
    return f"{place.rstrip('/')}/{Path(setting.run).name}" if is_url(place) else None


def _data_url(place: str, data: Path, content: str) -> str:
    return f"{place.rstrip('/')}/.data/{data.name}{content and f'-{content[:16]}'}"


def content_of_data(run: Run, data: Path) -> str:
    """What `data` of a run at a URL holds, for other machines to compare with; empty where there is no URL."""
    return signature.content_of(data) if url_of(run) is not None else ""


def key_of(run: Run) -> str:
    """The key with which what a run has at its URL is signed; empty where it has none."""
    url = url_of(run)
    return "" if url is None else signature.key_for(url)


# --- the run, in its driver
# --------------------------------------------------------------------------------------------


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

    def look() -> None:
        try:
            keeper.look()
        except (OSError, FtlibError) as error:
            warn(f"{url} is not kept up to date: {error}")

    try:
        with repeating(look, EVERY, "ftlib-mirror", object_store.PATIENCE):
            yield keeper.look
    finally:
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


@contextlib.contextmanager
def _empty() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _keep_data(place: str, data: Path) -> None:
    url = _data_url(place, data, signature.content_of(data))
    if object_store.read(f"{url}/report.json") is None:
        for file in sorted(
            data.rglob("*"), key=lambda file: file.name == "report.json"
        ):  # the report last: it is whole
            if file.is_file():
                object_store.put(file, f"{url}/{file.relative_to(data).as_posix()}")


class _Keeper:
    """Remembers what it has carried, so that a look costs one listing and what has changed."""

    def __init__(self, run: Run, url: str) -> None:
        self.run, self.url, self.key = run, url, signature.key_for(url)
        self.trusted = signature.was_trusted(run)
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
        changed, marks = {}, {}
        for file in files:
            if not file.exists():
                continue
            name, state = file.relative_to(self.run.path).as_posix(), file.stat()
            marks[name] = (state.st_size, state.st_mtime_ns)
            if self.pushed.get(name) != marks[name]:
                changed[name] = file
        tune = self.run.path / TUNE
        newest = _newest(tune) if tune.exists() else self.tune
        if changed or newest != self.tune:
            with _still(tune) if newest != self.tune else _empty() as copied:
                for name, file in changed.items():  # a copy: it is signed, and goes on being written
                    shutil.copy2(file, _made((copied / name).parent))
                copies = {name: copied / name for name in changed}
                _push(copied, self.url, (TUNE,) if newest != self.tune else (), copies, self.key)
            self.pushed |= {name: marks[name] for name in changed}
            self.tune = newest

    def _tell(self) -> None:
        """An event for each time that a trial has waited for the URL."""
        for trial in self.run.trials():
            rows = read_rows(trial.path / WAITS)
            for row in rows[self.waits.get(trial.id, 0) :]:
                self.run.log_event("storage_unreachable", trial=trial.id, lost_seconds=row["seconds"], why=row["why"])
            self.waits[trial.id] = len(rows)

    def _pull(self) -> None:
        """What trials on other machines have written, but for what is as large as weights.

        Raises FtlibError for what nobody with the run's key has written.
        """
        found = object_store.listing(f"{self.url}/trials")
        indexes: dict[str, Index] = {}
        for name, mark in sorted(found.items()):
            trial, _, rest = name.partition("/")
            if rest not in (*OF_TRIAL, *(OF_CONDUCTOR if trial == BASE else ())) or self.pulled.get(name) == mark:
                continue
            file = below(self.run.path / TRIALS, name, f"{self.url}/trials")
            if trial not in indexes:
                indexes[trial] = read_index(f"{self.url}/trials/{trial}", self.key)
            if indexes[trial].machine not in (None, this_machine()) and not self._bring(
                name, rest, file, indexes[trial]
            ):
                continue
            self.pulled[name] = mark

    def _bring(self, name: str, rest: str, file: Path, index: Index) -> bool:
        """Whether a file came as its index has it: one that is written just now comes at the next look."""
        with tempfile.TemporaryDirectory(dir=_made(file.parent), prefix=".coming-") as staged:
            came = Path(staged) / file.name
            object_store.get(f"{self.url}/trials/{name}", came)
            doubt = None if self.trusted else index.why_not_file(rest, came)
            if doubt is not None and read_index(index.url, self.key).files == index.files:
                raise FtlibError(f"{doubt}: what is there is not taken over.")
            if doubt is None:
                came.replace(file)
        return doubt is None


# --- a run, from outside
# ------------------------------------------------------------------------------------------------


def open_run(place: str) -> Run:
    """A run by its path or its URL; from a URL it is brought here, without checkpoints and weights.

    Raises InputError, with the nearest name beside it, when there is none.
    """
    if not is_url(place):
        return Run.open(place)
    object_store.check_url("RUN", place)
    url = find(place.rstrip("/"))
    run = Run(below(home() / "runs", url.rpartition("/")[2], url))
    if run.path.exists() and (kept := _kept_at(run)) not in (None, url):
        raise InputError(
            f"{run.path} is the run that is kept at {kept}, and {url} has its name: move one of them away."
        )
    if not _is_ours(run, url):
        fetch(url, run.path, whole=())
    return run


def _kept_at(run: Run) -> str | None:
    """Where a run that is here is kept, as far as it says so."""
    try:
        return signature.came_from(run) or url_of(run) or str(run.path)
    except FtlibError:
        return None


def _is_ours(run: Run, url: str) -> bool:
    """Whether this machine has conducted the run last, and has it still."""
    return (run.path / TUNE).exists() and read_index(url).machine == this_machine()


def find(url: str) -> str:
    """The URL of a run, or of the newest run of an experiment's name. Raises InputError when there is none."""
    if object_store.read(f"{url}/resolved.json") is not None:
        return url
    above, _, name = url.rpartition("/")
    beside = sorted({path.partition("/")[0] for path in object_store.listing(above)} - {".data"})
    same = [each for each in beside if STAMP.sub("", each) == name]
    if not same:
        raise InputError(f"{url} is no run (it has no resolved.json).{nearest(name, beside)}")
    return f"{above}/{same[-1]}"


def fetch(url: str, target: Path, whole: tuple[str, ...] = (ADAPTER, MODEL), tune: bool = True) -> Run:
    """Brings a run from its URL into a directory; `whole` are the directories of trials that come too.

    It is this user's run where all of it is as this user has signed it; where it is not, `signature.check` says which
    file is not. Raises InputError, before anything is written, for names there that are no names of files.
    """
    (target / signature.FILE).unlink(missing_ok=True)  # it was of what is replaced now
    there = {name: below(target, name, url) for name in object_store.listing(url)}
    files = {name: file for name, file in there.items() if name in OF_RUN or _is_of_trial(name)}
    trials = sorted({trial for name in there if (trial := _trial_of(name)) and not trial.startswith(".")})
    for name, file in files.items():  # before the indexes, which are written before the files
        object_store.get(f"{url}/{name}", file)
    (target / TRIALS).mkdir(parents=True, exist_ok=True)
    key = signature.key_for(url)
    index = read_index(url, key)
    of_gone = [name for name in index.files if _trial_of(name) not in (None, *trials)]
    doubts = [index.missing({*there, *of_gone})]
    for trial in trials:
        of_trial = read_index(f"{url}/trials/{trial}", key)
        doubts += [_doubt(index, of_trial, name, files[name]) for name in files if _trial_of(name) == trial]
        doubts.append(_pull_directories(of_trial.url, target / TRIALS / trial, whole, key))
    doubts += [index.why_not_file(name, file) for name, file in files.items() if "/" not in name]
    run = Run(target)
    if tune:
        doubts.insert(0, _pull_directories(url, target, (TUNE,), key))
    doubt = next(filter(None, doubts), None)
    if doubt is not None:
        signature.doubt(run, doubt, url)
    elif tune and (target / TUNE).exists():
        signature.sign(run)  # what this user has written there is as good as written here
    return run


def _trial_of(name: str) -> str | None:
    parts = name.split("/")
    return parts[1] if parts[0] == TRIALS and len(parts) > 2 else None


def _is_of_trial(name: str) -> bool:
    """Whether a name at a run's URL is that of a trial's file which comes alone."""
    parts = name.split("/")
    return len(parts) == 3 and parts[0] == TRIALS and parts[2] in (*OF_TRIAL, *OF_CONDUCTOR)


def _doubt(of_run: Index, of_trial: Index, name: str, file: Path) -> str | None:
    """The same of one file: the driver signs what its conductor writes, and a trial what it leaves itself."""
    _, trial, inside = name.split("/")
    if inside in OF_CONDUCTOR and trial != BASE:
        return of_run.why_not_file(name, file)
    return of_trial.why_not_file(inside, file)


def forget(run: Run, trial: Trial) -> None:
    """Removes a trial's directory, here and at the URL: a later trial of its number must not find its checkpoint."""
    url = url_of(run)
    if url is not None:
        object_store.remove(f"{url}/trials/{trial.id}")
    shutil.rmtree(trial.path, ignore_errors=True)


def bring_weights(run: Run, trial: Trial) -> None:
    """The trial's best weights, where they are only at the run's URL."""
    url = url_of(run)
    if url is not None and trial.weights is None:
        there = f"{url}/trials/{trial.id}"
        doubt = _pull_directories(there, trial.path, (ADAPTER, MODEL), signature.key_for(url))
        if doubt is not None:
            signature.doubt(run, doubt, url)


__all__ = [
    "download",
    "bring_weights",
    "content_of_data",
    "fetch",
    "find",
    "forget",
    "key_of",
    "upload",
    "local_storage",
    "mirrored",
    "open_run",
    "url_of",
]
