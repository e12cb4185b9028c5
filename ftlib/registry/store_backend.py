"""A registry behind a URL, where an object is written whole or not at all and nothing can be renamed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError
from ftlib.files import object_store
from ftlib.files.atomic import publish, staging_beside, write_json
from ftlib.files.home import home
from ftlib.files.locks import lock
from ftlib.registry.lease import Lease
from ftlib.registry.names import NAME, NUMBER
from ftlib.registry.staging import make_read_only, staging_in
from ftlib.registry.stored import (
    Location,
    Manifest,
    Move,
    as_json,
    gone,
    manifest_in,
    next_number,
    parsed,
)
from ftlib.run.layout import MANIFEST

PATIENCE = 15.0  # seconds that a store may be away: a person or a request waits
BRINGING = 60.0  # the same, while files are brought
RACY = 2.0  # seconds in which a store may give two writes the same time
AGAIN = 5.0  # seconds after which what could not be brought is asked for again


class StoreBackend:
    """A registry at an object store. What never changes is read once: manifests by this process, and files by this
    machine, where they lie whole below $FTLIB_HOME/cache/registry."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._manifests: dict[tuple[str, int], dict[str, Any]] = {}
        self._aliases: dict[str, tuple[tuple[int, int], float, bytes]] = {}  # (size, time), first seen, content
        self._carried: set[Path] = set()  # not yet published
        self._failed: dict[tuple[str, int], tuple[float, FtlibError]] = {}

    def names(self) -> list[str]:
        """The names that have an alias, in order."""
        return sorted(self._listed())

    def numbers(self, name: str) -> list[int]:
        """The numbers of a name's versions, in order."""
        with object_store.within(PATIENCE):
            found = object_store.listing(f"{self.url}/versions/{name}")
        stems = [file.removesuffix(".json") for file in found if file.endswith(".json")]
        return sorted(int(stem) for stem in stems if NUMBER.fullmatch(stem))

    def at(self, name: str, number: int) -> Location:
        """The URL of the registry, by which a version finds its files."""
        return self.url

    def check(self, name: str, number: int) -> None:
        """Raises FtlibError where a version's object is gone."""
        self.manifest(name, number)

    def alias_at(self, name: str) -> str:
        """The URL of a name's alias, for messages."""
        return f"{self.url}/current/{name}.json"

    def alias(self, name: str) -> bytes | None:
        """The content of a name's alias; None where the name has none."""
        with object_store.within(PATIENCE):
            return object_store.read(self.alias_at(name))

    def aliases(self) -> dict[str, bytes]:
        """All of them: one listing, and those read that have changed. A store's times are coarse, so an alias that is
        new is read again until another change of it must have had another time."""
        found = {}
        for name, mark in self._listed().items():
            known = self._aliases.get(name)
            first = known[1] if known is not None and known[0] == mark else time.monotonic()
            if known is not None and known[0] == mark and time.monotonic() - first > RACY:
                found[name] = known[2]
            elif (content := self.alias(name)) is not None:
                found[name] = content
                self._aliases[name] = (mark, first, content)
        return found

    @contextlib.contextmanager
    def moving(self, name: str) -> Iterator[Move]:
        """One process at a time moves the alias, as far as `Lease` can see to that. Where it cannot, the later move
        stands: the version of the other is there and whole, and the name does not mean it."""
        with object_store.within(PATIENCE), Lease(f"{self.url}/locks/{name}.json") as lease:

            def move(state: dict[str, Any]) -> None:
                lease.check()
                object_store.put_bytes(as_json(state), self.alias_at(name))

            yield move

    @contextlib.contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """The folder in which a version is put together, on this machine. It is gone afterwards."""
        with staging_in(self._cache) as staged:
            try:
                yield staged
            finally:
                if staged in self._carried:
                    self._carried.remove(staged)
                    with contextlib.suppress(FtlibError), object_store.within(PATIENCE):  # they are in nobody's way
                        object_store.remove(self._files_at(_files(name, staged)))

    def carry(self, name: str, staged: Path) -> None:
        """Uploads the staged files into a folder of their own. They are no version yet."""
        self._carried.add(staged)
        object_store.put_folder(staged, self._files_at(_files(name, staged)))

    def publish(self, name: str, staged: Path, manifest: Manifest) -> int:
        """Writes the object that makes the carried files the next version. It is read back: whoever took the same
        number since, against the lock, keeps it."""
        given = f"{self.url}/numbers/{name}.json"
        highest = parsed(object_store.read(given) or b"{}", given)
        for number in itertools.count(next_number(self.numbers(name), highest, given)):
            object_store.put_bytes(as_json({"highest": number}), given)
            content = as_json({**manifest(number), "files": _files(name, staged)})
            object_store.put_bytes(content, self._version_at(name, number))
            if object_store.read(self._version_at(name, number)) == content:
                self._carried.discard(staged)
                return number
        raise AssertionError("numbers do not end")

    # --- versions on this machine ------------------------------------------------------------------------------

    def manifest(self, name: str, number: int) -> dict[str, Any]:
        """The manifest of a version. Raises FtlibError when it is gone, or damaged."""
        if (name, number) not in self._manifests and self.here(name, number).is_dir():
            self._manifests[name, number] = manifest_in(self.here(name, number))
        if (name, number) not in self._manifests:
            url = self._version_at(name, number)
            with object_store.within(PATIENCE):
                content = object_store.read(url)
            if content is None:
                raise gone(name, number, url)
            self._manifests[name, number] = parsed(content, url, "files", "kind")
        return self._manifests[name, number]

    def here(self, name: str, number: int) -> Path:
        """The folder of this machine in which a version's files are, or will be."""
        return self._cache / name / str(number)

    def bring(self, name: str, number: int) -> Path:
        """The folder with a version's files, downloaded where they are not here: whole, and once, while other threads
        and processes wait. Raises FtlibError where the download fails; for a while after that it raises at once."""
        target = self.here(name, number)
        if target.is_dir():
            return target
        with lock(target.parent / f".{number}.lock"):
            since, error = self._failed.get((name, number), (-AGAIN, None))
            if error is not None and time.monotonic() - since < AGAIN:
                raise error
            if not target.is_dir():
                try:
                    self._bring(name, number, target)
                except FtlibError as failure:
                    self._failed[name, number] = (time.monotonic(), failure)
                    raise
        return target

    def _bring(self, name: str, number: int, target: Path) -> None:
        manifest = self.manifest(name, number)
        url = self._files_at(manifest["files"])
        staged = staging_beside(target)
        try:
            with object_store.within(BRINGING):
                object_store.get_folder(url, staged)
            write_json(staged / MANIFEST, manifest)
            make_read_only(staged)
            publish(staged, target)
        except FileNotFoundError:
            raise FtlibError(
                f"the files of {name}@{number} are gone from {url}: put them back, or promote another."
            ) from None
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    @property
    def _cache(self) -> Path:
        return home() / "cache" / "registry" / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def _listed(self) -> dict[str, tuple[int, int]]:
        """The aliases, each with its size and time."""
        with object_store.within(PATIENCE):
            found = object_store.listing(f"{self.url}/current")
        marks = {file.removesuffix(".json"): mark for file, mark in found.items() if file.endswith(".json")}
        return {name: mark for name, mark in marks.items() if NAME.fullmatch(name)}

    def _version_at(self, name: str, number: int) -> str:
        return f"{self.url}/versions/{name}/{number}.json"

    def _files_at(self, files: str) -> str:
        return f"{self.url}/files/{files}"


def _files(name: str, staged: Path) -> str:
    """The name of the folder of the staged files at the store. No other folder has it."""
    return f"{name}-{staged.name.removeprefix('.staged-')}"
