"""What is made once and read often: folders under FTLIB_HOME/cache, by what they depend on, whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError
from ftlib.files.atomic import publish, staging_beside
from ftlib.files.home import home
from ftlib.files.locks import hold


def cached(kind: str, parts: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder that holds what `build` makes of `parts`, made once: other processes that need it meanwhile wait.

    `build` fills an empty folder; what it raises passes through, and nothing stays of that try. Where the file system
    has no locks two may build at once; the first to finish is taken. Raises FtlibError when it cannot be written.
    """
    target = _folder(kind, parts)
    _made(target, build, wait=True)
    return target


def shared_out(kind: str, parts: Sequence[dict[str, Any]], build: Callable[[int, Path], None]) -> list[Path]:
    """The same for several folders. Processes that need them at the same time share the work: each makes the next one
    that no other process makes. `build` gets the number of a part, and an empty folder."""
    targets = [_folder(kind, part) for part in parts]
    left = list(range(len(targets)))
    while left:
        now = [number for number in left if _made(targets[number], partial(build, number), wait=False)]
        if not now:  # others make all that is left
            _made(targets[left[0]], partial(build, left[0]), wait=True)
            now = left[:1]
        left = [number for number in left if number not in now]
    return targets


def _folder(kind: str, parts: dict[str, Any]) -> Path:
    return home() / "cache" / kind / hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _made(target: Path, build: Callable[[Path], None], *, wait: bool) -> bool:
    """Makes the folder where it is not there. False where another process makes it, unless `wait`."""
    if target.is_dir():
        return True
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f".{target.name}.lock"), wait):
            if not target.is_dir():
                _make(target, build)
    except BlockingIOError:
        return False
    except OSError as error:
        raise FtlibError(f"cannot write to {target.parent}: {error.strerror or error}; FTLIB_HOME moves it.") from error
    return True


def _make(target: Path, build: Callable[[Path], None]) -> None:
    staged = staging_beside(target)
    staged.mkdir()
    try:
        build(staged)
        publish(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[None]:
    """Raises BlockingIOError where another process holds it, unless `wait`."""
    with path.open("a") as file:
        try:
            hold(file, wait)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield
