"""What is made once and read often: folders under FTLIB_HOME/cache, by what they depend on, whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
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
    staged = staging_beside(target)
    staged.mkdir()
    try:
        build(staged)
        publish(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        with contextlib.suppress(OSError):
            hold(file)
        yield
