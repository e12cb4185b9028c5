"""The content of files as hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ftlib.errors import DataError
from ftlib.files.object_store import local_copy


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_files(name: str) -> str:
    """The SHA-256 of a file, or of a folder's files with their names. What is neither (a name on the Hub) stands for
    itself."""
    path = Path(local_copy("steps", name)).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        told = "".join(f"{file.relative_to(path)}\0{digest_of(file)}\0" for file in files)
        return hashlib.sha256(told.encode()).hexdigest()
    if path.is_file():
        return digest_of(path)
    if path.suffix or name.startswith(("/", ".", "~")):
        raise DataError(f"steps: there is no file '{name}'.")
    return name
