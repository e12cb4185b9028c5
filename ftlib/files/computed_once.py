"""What is made once and read often: folders under FTLIB_HOME/cache, by what they depend on, whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError
from ftlib.files.home import home


def cached(kind: str, parts: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder that holds what `build` makes of `parts`, made once: other processes that need it meanwhile wait.

    `build` fills an empty folder; what it raises passes through, and nothing stays of that try. Where the file system
    has no locks two may build at once; the first to finish is taken. Raises FtlibError when it cannot be written.
    """
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    target = home() / "cache" / kind / key
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f".{key}.lock")):
            if not target.is_dir():
                _make(target, build)
    except OSError as error:
        raise FtlibError(f"cannot write to {target.parent}: {error.strerror or error}; FTLIB_HOME moves it.") from error
    return target


def _make(target: Path, build: Callable[[Path], None]) -> None:
    staged = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(3)}")
    staged.mkdir()
    try:
        build(staged)
        _reach_disk(staged)
        with contextlib.suppress(OSError):  # another has put it there
            os.rename(staged, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    if not target.is_dir():
        raise OSError(f"{target} could not be put in its place")


def _reach_disk(folder: Path) -> None:
    """A rename may outlive a power cut that its files do not."""
    for path in sorted(folder.rglob("*"), reverse=True):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
