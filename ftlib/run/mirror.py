"""A run whose storage is a URL: written on the disks of the machines that compute it, and kept at the URL as it goes.

Each file has one writer, so each process carries its own files there and no two ever write one object. The driver
carries what it writes itself, every few seconds and at the end; a trial carries its own directory after each
evaluation, before it reports it, so whoever stops the trial then, or takes over from a lost machine, finds all of it.

    <storage>/<run>/   the run directory, but for the directories that are replaced as wholes (`WHOLE`, `tune`):
                       <name>.<mark>/ holds one state of it, and index.json beside it says which one is meant. The new
                       state is written beside the old, then the index, and then the old one goes: an object store
                       renames nothing, and a reader always finds a whole directory.
    <storage>/.data/<hash>-<content>/   prepared data, once for all runs; whoever brings it looks at its content

Who else can write to the bucket must not choose what runs: indexes are signed (`index.py`), and names from there become
paths in one place (`files/paths.py`).

A machine is known by the file FTLIB_HOME/machine: where an index was written by this one, the local files are the
newest.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ftlib.errors import FtlibError
from ftlib.files import object_store
from ftlib.files.json_files import read_rows
from ftlib.files.paths import below
from ftlib.files.repeating import repeating
from ftlib.run import signature
from ftlib.run.directory import Run
from ftlib.run.index import Index, read_index
from ftlib.run.layout import (
    BASE,
    OF_RUN,
    OF_TRIAL,
    OF_TRIAL_BY_DRIVER,
    TRIALS,
    TUNE,
    WAITS,
)
from ftlib.run.places import data_url, this_machine, url_of
from ftlib.run.remote_folders import newest, push
from ftlib.run.trial_transfer import made

EVERY = 5.0  # seconds between two looks of the driver


@contextlib.contextmanager
def mirrored(run: Run, data: Path, warn: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Keeps a run at its URL, and what its trials wrote elsewhere here, while the block lasts; gives what does it now.

    Raises FtlibError at once where the URL refuses. What fails later is warned of, and tried again.
    """
    url = url_of(run)
    if url is None:
        yield lambda: None
        return
    keeper = Keeper(run, url)
    keeper.push()
    keep_data(run.resolved["experiment"]["storage"], data)

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
            before = newest(folder)
            with contextlib.suppress(OSError, shutil.Error):  # a file was replaced meanwhile
                shutil.copytree(folder, Path(parent) / folder.name)
                if newest(folder) == before or left == 1:
                    break
            time.sleep(0.05)
        yield Path(parent)


@contextlib.contextmanager
def _empty() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def keep_data(place: str, data: Path) -> None:
    """Brings prepared data to a store, once for all runs."""
    url = data_url(place, data, signature.content_of(data))
    if object_store.read(f"{url}/report.json") is None:
        for file in sorted(
            data.rglob("*"), key=lambda file: file.name == "report.json"
        ):  # the report last: it is whole
            if file.is_file():
                object_store.put(file, f"{url}/{file.relative_to(data).as_posix()}")


class Keeper:
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
        files += [trial.path / name for trial in self.run.trials() for name in OF_TRIAL_BY_DRIVER]
        changed, marks = {}, {}
        for file in files:
            if not file.exists():
                continue
            name, state = file.relative_to(self.run.path).as_posix(), file.stat()
            marks[name] = (state.st_size, state.st_mtime_ns)
            if self.pushed.get(name) != marks[name]:
                changed[name] = file
        tune = self.run.path / TUNE
        latest = newest(tune) if tune.exists() else self.tune
        if changed or latest != self.tune:
            with _still(tune) if latest != self.tune else _empty() as copied:
                for name, file in changed.items():  # a copy: it is signed, and goes on being written
                    shutil.copy2(file, made((copied / name).parent))
                copies = {name: copied / name for name in changed}
                push(copied, self.url, (TUNE,) if latest != self.tune else (), copies, self.key)
            self.pushed |= {name: marks[name] for name in changed}
            self.tune = latest

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
            if rest not in (*OF_TRIAL, *(OF_TRIAL_BY_DRIVER if trial == BASE else ())) or self.pulled.get(name) == mark:
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
        with tempfile.TemporaryDirectory(dir=made(file.parent), prefix=".coming-") as staged:
            came = Path(staged) / file.name
            object_store.get(f"{self.url}/trials/{name}", came)
            doubt = None if self.trusted else index.why_not_file(rest, came)
            if doubt is not None and read_index(index.url, self.key).files == index.files:
                raise FtlibError(f"{doubt}: what is there is not taken over.")
            if doubt is None:
                came.replace(file)
        return doubt is None
