"""The hash of what is in a file or a folder, remembered by size and time: a model of gigabytes is read once.

A file that is written again in the same nanosecond, with the same size, would pass for the old one: no file system
that counts nanoseconds does that.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json

SMALL = 2**16  # bytes that are read each time


class Contents:
    """Hashes, kept in a file between processes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        told = read_json(file, dict) or {}
        self._known = {key: value for key, value in told.items() if isinstance(value, str)}
        self._asked: dict[str, str] = {}

    def of(self, path: Path) -> str:
        """The hash of a file, or of all files in a folder with their names: 64 hex digits."""
        if path.is_file():
            return self._of_file(path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        told = "".join(f"{file.relative_to(path).as_posix()}\0{self._of_file(file)}\0" for file in files)
        return hashlib.sha256(told.encode()).hexdigest()

    def save(self) -> None:
        """Writes what was asked for, for the next process."""
        if self._asked != self._known:
            write_json(self._file, self._asked)

    def _of_file(self, path: Path) -> str:
        about = path.stat()
        key = f"{path.absolute()} {about.st_size} {about.st_mtime_ns} {about.st_ino}"
        found = self._known.get(key) if about.st_size > SMALL else None
        if found is None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        if about.st_size > SMALL:
            self._asked[key] = found
        return found
