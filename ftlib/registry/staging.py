"""Where versions are put together: a hidden folder, gone afterwards, also where a kill has left it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ftlib.files.atomic import write_text

LEFT_BEHIND = 86_400.0  # seconds after which a copy of another machine counts as left by a kill


@contextlib.contextmanager
def staging_in(folder: Path) -> Iterator[Path]:
    """A new name in a folder for what is put together there, gone afterwards. What kills have left there goes first:
    beside each copy stands whose it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for other in [*folder.glob(".staged-*")]:
        _sweep(other)
    staged = folder / f".staged-{secrets.token_hex(6)}"
    owner = _owner(staged)
    try:
        write_text(owner, f"{os.getpid()} {socket.gethostname()}")
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        owner.unlink(missing_ok=True)


def _owner(staged: Path) -> Path:
    return staged.with_name(f"{staged.name}.owner")


def _sweep(left: Path) -> None:
    """Removes a copy, and what says whose it is, where its process is gone; of another machine, after a day."""
    copy = left.with_suffix("") if left.suffix == ".owner" else left
    with contextlib.suppress(OSError):  # it has just ended
        pid, _, host = _owner(copy).read_text().partition(" ") if _owner(copy).exists() else ("", "", "")
        old = time.time() - left.stat().st_mtime > LEFT_BEHIND
        if old if host != socket.gethostname() else not _lives(int(pid)):
            shutil.rmtree(copy, ignore_errors=True)
            _owner(copy).unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def make_read_only(folder: Path) -> None:
    """All files of a version, which is never written again."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o444)
