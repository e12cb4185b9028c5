"""Whole files and whole directories, or nothing of them: written beside, brought to the disk, renamed."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftlib.files.patience import patiently


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Writes a whole file or nothing of it, also when the power goes: the new content is on the disk before its name
    is. `mode` is less the umask. Raises StorageError where that is not possible for a minute."""
    staged = staging_beside(path)

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.unlink(missing_ok=True)  # of a try before
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)

    patiently(write, path)


def write_json(path: Path, value: Any) -> None:
    """Writes a whole JSON file or nothing of it."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def write_first(file: Path, content: bytes, mode: int) -> None:
    """Writes a whole file, on the disk, unless there is one: of several that write at once, the first one's stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = staging_beside(file)
    try:
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        try:
            os.link(staged, file)  # fails where there is one, which a rename would replace
        except FileExistsError:
            return
        except OSError:  # a file system without links
            if not file.exists():
                os.rename(staged, file)
        to_disk(file.parent)
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def written_beside(file: Path) -> Iterator[Path]:
    """A name to write to within; what stands there afterwards replaces `file`, unless the block fails."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = staging_beside(file)
    try:
        yield staged
        os.replace(staged, file)
    finally:
        staged.unlink(missing_ok=True)


def to_disk(folder: Path) -> None:
    """Brings a directory's names to the disk, and with them a rename in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_to_disk(file: Path) -> None:
    """Brings what was appended to a file to the disk, and the file's name."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    to_disk(file.parent)


def all_to_disk(folder: Path) -> None:
    """Brings all files of a directory to the disk, and the directory itself."""
    for entry in folder.rglob("*"):
        if entry.is_file():
            with entry.open("rb") as file:
                os.fsync(file.fileno())
        elif entry.is_dir():
            to_disk(entry)
    to_disk(folder)


def link(source: str, target: str) -> None:
    """A hard link where the file system has them: published files are never written again."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def target_of(aside: Path) -> Path:
    """The file or directory that something put aside, or half written, stands for."""
    return aside.with_name(aside.name.removeprefix(".").removesuffix(".old"))


def replace_directory(staged: Path, target: Path) -> None:
    """Puts `staged` in the place of `target`. Killed at any point, or without power, `settled(target)` is a whole
    directory; when this returns, the new one is on the disk."""
    old = _aside(target)

    def swap() -> None:
        if staged.exists():
            all_to_disk(staged)
        if target.exists() and staged.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
        if staged.exists():
            os.replace(staged, target)
        to_disk(target.parent)

    patiently(swap, target)
    shutil.rmtree(old, ignore_errors=True)


def publish(staged: Path, target: Path) -> bool:
    """Puts a finished directory where none is yet, on the disk, whole; False where another was first: `staged` stays
    then."""
    all_to_disk(staged)
    try:
        os.rename(staged, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    to_disk(target.parent)
    return True


def staging_beside(target: Path) -> Path:
    """The hidden name under which something is put together before it gets its own. Nothing is there yet."""
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(6)}")


def settled(target: Path) -> Path | None:
    """`target`, or what it replaced when the replacing was cut short, or None when there never was one."""
    if target.exists():
        return target
    return _aside(target) if _aside(target).exists() else None
