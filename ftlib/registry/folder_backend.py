"""A registry in a folder: renames and the kernel's locks."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError
from ftlib.files.atomic import publish, to_disk, write_json
from ftlib.files.json_files import read_json
from ftlib.files.locks import lock
from ftlib.registry.names import ALIAS_BYTES, NAME, NUMBER
from ftlib.registry.staging import staging_in
from ftlib.registry.stored import (
    Location,
    Manifest,
    Move,
    gone,
    manifest_in,
    next_number,
)
from ftlib.run.layout import LOCK, MANIFEST


class FolderBackend:
    """A registry on a disk, or on one that machines share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The names that have an alias, in order."""
        return sorted(file.parent.name for file in self.root.glob("*/current.json") if NAME.fullmatch(file.parent.name))

    def numbers(self, name: str) -> list[int]:
        """The numbers of a name's versions, in order."""
        folder = self.root / name
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(int(path.name) for path in found if NUMBER.fullmatch(path.name) and path.is_dir())

    def at(self, name: str, number: int) -> Location:
        """The folder of a version."""
        return self.root / name / str(number)

    def check(self, name: str, number: int) -> None:
        """Raises FtlibError where a version's folder is gone."""
        if not (path := self.root / name / str(number)).is_dir():
            raise gone(name, number, path)

    def alias_at(self, name: str) -> str:
        """The path of a name's alias, for messages."""
        return str(self.root / name / "current.json")

    def alias(self, name: str) -> bytes | None:
        """The content of a name's alias; None where the name has none."""
        try:
            with Path(self.alias_at(name)).open("rb") as file:
                return file.read(ALIAS_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise FtlibError(f"{self.alias_at(name)} cannot be read: {error.strerror}.") from None

    def aliases(self) -> dict[str, bytes]:
        """The content of every alias. An alias that cannot be read is there as a damaged one."""
        found = {}
        for name in self.names():
            try:
                content = self.alias(name)
            except FtlibError:
                content = b""
            if content is not None:
                found[name] = content
        return found

    def manifest(self, name: str, number: int) -> dict[str, Any]:
        """The manifest of a version. Raises FtlibError when it is gone, or damaged."""
        self.check(name, number)
        return manifest_in(self.root / name / str(number))

    @contextlib.contextmanager
    def moving(self, name: str) -> Iterator[Move]:
        """One process at a time moves the alias, by one rename; the kernel frees the lock when its holder dies."""

        def move(state: dict[str, Any]) -> None:
            write_json(Path(self.alias_at(name)), state)
            to_disk(self.root / name)

        with lock(self.root / name / LOCK):
            yield move

    @contextlib.contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """The folder in which a version is put together. It is gone afterwards, unless it was published."""
        with staging_in(self.root / name) as staged:
            yield staged

    def carry(self, name: str, staged: Path) -> None:
        """Does nothing: the staged files are on the disk of the registry already. A store uploads them here."""

    def publish(self, name: str, staged: Path, manifest: Manifest) -> int:
        """Renames `staged` to the next number. Renaming onto a version that exists fails, so none is given twice."""
        given = self.root / ".numbers" / name
        highest = read_json(given, dict) or {}
        for number in itertools.count(next_number(self.numbers(name), highest, given)):
            write_json(staged / MANIFEST, manifest(number))
            if publish(staged, self.root / name / str(number)):
                write_json(given, {"highest": number})
                return number
        raise AssertionError("numbers do not end")
