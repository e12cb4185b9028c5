"""What a storage at a URL has of its runs, kept in a folder of this machine for people to look at.

Only the files come that tell of a run: no checkpoint, no weights. A file here has the size and the time of its object,
so it is brought again only when it has changed, also by a later command. Nothing of it is believed, resumed or
promoted: `remote_run` opens a run for that.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path

from ftlib.errors import FtlibError, InputError
from ftlib.files import object_store
from ftlib.files.atomic import write_text
from ftlib.files.home import home
from ftlib.files.paths import below, why_no_name
from ftlib.files.repeating import repeating
from ftlib.run.directory import Run
from ftlib.run.layout import OF_RUN, TRIALS
from ftlib.run.remote_run import is_of_trial

SOURCE = ".url"  # in the folder: the URL that it is a copy of
EVERY = 5.0  # seconds between two looks at the URL
AWAY = 20.0  # seconds that a store may be away before a look gives up
TOGETHER = 16  # objects that are brought at once
FRESH = 120.0  # seconds after its last change in which a run counts as running

Mark = tuple[int, int]  # bytes, and nanoseconds of the time


@contextmanager
def copied(url: str, warn: Callable[[str], None]) -> Iterator[Path]:
    """Within, the folder is kept as the URL is. Raises ConfigError for a URL that cannot be used, FtlibError for one
    that does not answer, and InputError where no run is there."""
    object_store.check_url("URL", url)
    copy = StorageCopy(url.rstrip("/"))
    copy.look()

    def look() -> None:
        try:
            copy.look()
        except (OSError, FtlibError) as error:
            warn(f"{url} is shown as it was: {error}")

    with repeating(look, EVERY, "ftlib-copy", AWAY):
        yield copy.folder


class StorageCopy:
    """The copy of one storage."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.folder = home() / "cache" / "runs" / hashlib.sha256(url.encode()).hexdigest()[:16]

    def look(self) -> None:
        """Brings what has changed, and removes what is gone. Raises FtlibError and InputError."""
        with object_store.within(AWAY):
            there = {name: mark for name, mark in object_store.listing(self.url).items() if _tells(name)}
            if not there:
                raise InputError(f"{self.url} has no run: give what `storage:` names, s3://BUCKET/FOLDER.")
            write_text(self.folder / SOURCE, self.url)
            self._forget({name.partition("/")[0] for name in there})
            changed = {name: mark for name, mark in there.items() if _mark(self.folder / name) != mark}
            with ThreadPoolExecutor(TOGETHER) as pool:
                coming = [pool.submit(copy_context().run, self._bring, name, mark) for name, mark in changed.items()]
                for future in coming:
                    future.result()

    def _bring(self, name: str, mark: Mark) -> None:
        file = below(self.folder, name, self.url)
        (self.folder / name.partition("/")[0] / TRIALS).mkdir(parents=True, exist_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # it was removed since
            object_store.get(f"{self.url}/{name}", file)
            os.utime(file, ns=(mark[1], mark[1]))

    def _forget(self, runs: set[str]) -> None:
        for entry in [*self.folder.iterdir()]:
            if entry.is_dir() and entry.name not in runs:
                shutil.rmtree(entry)


def _tells(name: str) -> bool:
    """Whether an object of the storage is a file that tells of a run, under a name that can be one here."""
    run, _, rest = name.partition("/")
    return why_no_name(name) is None and not run.startswith(".") and (rest in OF_RUN or is_of_trial(rest))


def _mark(file: Path) -> Mark | None:
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def source_of(run: Run) -> str | None:
    """The URL of a run of a copy; None of a run that is itself here."""
    file = run.path.parent / SOURCE
    return f"{file.read_text(encoding='utf-8')}/{run.name}" if file.is_file() else None


def is_fresh(run: Run) -> bool:
    """Whether a file of a copied run has changed a short time ago, by the store's clock against this machine's."""
    files = [*run.path.glob("*"), *run.path.glob(f"{TRIALS}/*/*")]
    newest = max((mark[1] for file in files if file.is_file() and (mark := _mark(file))), default=0)
    return time.time() - newest / 1e9 < FRESH
