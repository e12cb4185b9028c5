"""The kernel's locks on files, and files that are opened so that no link leads to another one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError


def hold(file: Any, wait: bool = True) -> None:
    """Takes the kernel's lock on an open file (or its descriptor) until it is closed. Raises BlockingIOError where it
    is held and `wait` is false, and OSError where the file system has no locks."""
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def lock(path: Path, wait: bool = True) -> Iterator[Any]:
    """The kernel's lock on a file, which is freed when its holder dies; gives the file, which nobody has written to
    yet.

    Raises BlockingIOError where it is held and `wait` is false, and FtlibError for a link: it could lead to any file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(open_no_link(path, os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8", errors="replace") as file:
        hold(file, wait)
        yield file


def open_no_link(path: Path, flags: int) -> int:
    """Opens a plain file for writing. Raises FtlibError for a link, a second name of another file, and what is no
    file."""
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
