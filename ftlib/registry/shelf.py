"""Where the registry lies: a folder, or objects behind a URL. `FTLIB_REGISTRY` says which; unset, $FTLIB_HOME/registry.

    a folder                                      behind a URL
    <name>/current.json        the alias          current/<name>.json
    <name>/<n>/manifest.json   a version          versions/<name>/<n>.json, which names the folder of its files:
    <name>/<n>/adapter/ ...    its files          files/<name>-<random>/adapter/ ...
    <name>/.lock               who moves it       locks/<name>.json
    .numbers/<name>            the highest given  numbers/<name>.json

A folder has renames and the kernel's locks: a version appears in one move, with a number that nobody else has. An object
store has neither, and only one thing is relied on: an object is written whole or not at all. So the files go up first,
under a name that nobody else has; then the one object that makes them a version; then the alias. What is cut short is
no version, and two promotions never mix their files. All aliases lie together, so that one short listing tells which
of them have changed.

A number is given once, also when its version, or all of its name, was removed since: whoever keeps what a number means
(an endpoint, a machine's cache) never has another's.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError
from ftlib.files import object_store
from ftlib.files.atomic import publish, staging_beside, to_disk, write_json, write_text
from ftlib.files.home import home
from ftlib.files.json_files import damaged, parse_json, read_json
from ftlib.files.locks import lock
from ftlib.files.urls import is_url
from ftlib.registry.lease import Lease
from ftlib.run import manifest as manifests
from ftlib.run.layout import MANIFEST

VARIABLE = "FTLIB_REGISTRY"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
ALIAS_BYTES = 2**20
MANIFEST_BYTES = 2**24  # it holds an experiment, whose space may list many points
LEFT_BEHIND = 86_400.0  # seconds after which a copy of another machine counts as left by a kill
FILES = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")  # no separator: a folder below files/, and no other
PATIENCE = 15.0  # seconds that a store may be away: a person or a request waits
BRINGING = 60.0  # the same, while files are brought
RACY = 2.0  # seconds in which a store may give two writes the same time
AGAIN = 5.0  # seconds after which what could not be brought is asked for again

Place = Path | str  # of a version: its folder, or the URL of its registry
Manifest = Callable[[int], dict[str, Any]]  # of a version, once it has a number
Move = Callable[[dict[str, Any]], None]  # writes an alias


def given() -> str:
    """`FTLIB_REGISTRY`: a path, a URL, or nothing. Raises ConfigError for a URL that is none."""
    where = os.environ.get(VARIABLE, "").strip()
    if is_url(where):
        object_store.check_url(VARIABLE, where)
        return where.rstrip("/")
    return str(Path(where).expanduser().absolute()) if where else ""


def shelf() -> Folder | Objects:
    """The registry's."""
    where = given()
    return objects(where) if is_url(where) else Folder(Path(where) if where else home() / "registry")


@lru_cache(maxsize=8)
def objects(url: str) -> Objects:
    """What lies below a URL: one for the whole process, since it remembers what it has read."""
    return Objects(url)


class Folder:
    """A registry on a disk, or on one that machines share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Those that have an alias, in order."""
        return sorted(file.parent.name for file in self.root.glob("*/current.json") if NAME.fullmatch(file.parent.name))

    def numbers(self, name: str) -> list[int]:
        """Of the versions of a name, in order."""
        folder = self.root / name
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(int(path.name) for path in found if NUMBER.fullmatch(path.name) and path.is_dir())

    def at(self, name: str, number: int) -> Place:
        """Where a version is, if it is."""
        return self.root / name / str(number)

    def check(self, name: str, number: int) -> None:
        """Raises FtlibError for a version that is gone."""
        if not (path := self.root / name / str(number)).is_dir():
            raise _gone(name, number, path)

    def alias_at(self, name: str) -> str:
        """Where a person finds it."""
        return str(self.root / name / "current.json")

    def alias(self, name: str) -> bytes | None:
        """What is written there, or None."""
        try:
            with Path(self.alias_at(name)).open("rb") as file:
                return file.read(ALIAS_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise FtlibError(f"{self.alias_at(name)} cannot be read: {error.strerror}.") from None

    def aliases(self) -> dict[str, bytes]:
        """All of them; what cannot be read is damaged."""
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
        """Of a version. Raises FtlibError when it is gone, or damaged."""
        self.check(name, number)
        return manifest_in(self.root / name / str(number))

    @contextlib.contextmanager
    def moving(self, name: str) -> Iterator[Move]:
        """One process at a time moves the alias, by one rename; the kernel frees the lock when its holder dies."""

        def move(state: dict[str, Any]) -> None:
            write_json(Path(self.alias_at(name)), state)
            to_disk(self.root / name)

        with lock(self.root / name / ".lock"):
            yield move

    @contextlib.contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """The folder in which a version is put together. It is gone afterwards, unless it was published."""
        with staging_in(self.root / name) as staged:
            yield staged

    def carry(self, name: str, staged: Path) -> None:
        """Takes the staged files to where they will be. They are there."""

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


class Objects:
    """A registry at an object store. What never changes is read once: manifests by this process, and files by this machine,
    where they lie whole below $FTLIB_HOME/cache/registry."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._manifests: dict[tuple[str, int], dict[str, Any]] = {}
        self._aliases: dict[str, tuple[tuple[int, int], float, bytes]] = {}  # (size, time), first seen, content
        self._carried: set[Path] = set()  # not yet published
        self._failed: dict[tuple[str, int], tuple[float, FtlibError]] = {}

    def names(self) -> list[str]:
        """Those that have an alias, in order."""
        return sorted(self._listed())

    def numbers(self, name: str) -> list[int]:
        """Of the versions of a name, in order."""
        with object_store.within(PATIENCE):
            found = object_store.listing(f"{self.url}/versions/{name}")
        stems = [file.removesuffix(".json") for file in found if file.endswith(".json")]
        return sorted(int(stem) for stem in stems if NUMBER.fullmatch(stem))

    def at(self, name: str, number: int) -> Place:
        """Where a version is, if it is."""
        return self.url

    def check(self, name: str, number: int) -> None:
        """Raises FtlibError for a version that is gone."""
        self.manifest(name, number)

    def alias_at(self, name: str) -> str:
        """Where a person finds it."""
        return f"{self.url}/current/{name}.json"

    def alias(self, name: str) -> bytes | None:
        """What is written there, or None."""
        with object_store.within(PATIENCE):
            return object_store.read(self.alias_at(name))

    def aliases(self) -> dict[str, bytes]:
        """All of them: one listing, and those read that have changed. A store's times are coarse, so an alias that is new is
        read again until another change of it must have had another time."""
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
        """One process at a time moves the alias, as far as `Lease` can see to that. Where it cannot, the later move stands:
        the version of the other is there and whole, and the name does not mean it."""
        with object_store.within(PATIENCE), Lease(f"{self.url}/locks/{name}.json") as lease:

            def move(state: dict[str, Any]) -> None:
                lease.check()
                object_store.put_bytes(_json(state), self.alias_at(name))

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
        """Takes the staged files to where they will be, which is no version yet."""
        self._carried.add(staged)
        object_store.put_folder(staged, self._files_at(_files(name, staged)))

    def publish(self, name: str, staged: Path, manifest: Manifest) -> int:
        """Writes the object that makes the carried files the next version. It is read back: whoever took the same number
        since, against the lock, keeps it."""
        given = f"{self.url}/numbers/{name}.json"
        highest = _value(object_store.read(given) or b"{}", given)
        for number in itertools.count(next_number(self.numbers(name), highest, given)):
            object_store.put_bytes(_json({"highest": number}), given)
            content = _json({**manifest(number), "files": _files(name, staged)})
            object_store.put_bytes(content, self._version_at(name, number))
            if object_store.read(self._version_at(name, number)) == content:
                self._carried.discard(staged)
                return number
        raise AssertionError("numbers do not end")

    # --- versions on this machine ------------------------------------------------------------------------------

    def manifest(self, name: str, number: int) -> dict[str, Any]:
        """Of a version. Raises FtlibError when it is gone, or damaged."""
        if (name, number) not in self._manifests and self.here(name, number).is_dir():
            self._manifests[name, number] = manifest_in(self.here(name, number))
        if (name, number) not in self._manifests:
            url = self._version_at(name, number)
            with object_store.within(PATIENCE):
                content = object_store.read(url)
            if content is None:
                raise _gone(name, number, url)
            self._manifests[name, number] = _value(content, url, "files", "kind")
        return self._manifests[name, number]

    def here(self, name: str, number: int) -> Path:
        """Where the files of a version are on this machine, once they have been brought."""
        return self._cache / name / str(number)

    def bring(self, name: str, number: int) -> Path:
        """The same, brought when they are not there: whole, and once, while other threads and processes wait for them.

        Raises FtlibError when that is not possible, and for a while again without trying.
        """
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


def make_read_only(folder: Path) -> None:
    """All files of a version, which is never written again."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o444)


def _files(name: str, staged: Path) -> str:
    """What the folder of the staged files is called at a store: nobody else calls one so."""
    return f"{name}-{staged.name.removeprefix('.staged-')}"


def _gone(name: str, number: int, where: Place) -> FtlibError:
    return FtlibError(f"{name}@{number} is what '{name}' means, but {where} is gone: put it back there.")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2, default=str).encode() + b"\n"


def manifest_in(folder: Path) -> dict[str, Any]:
    """The manifest beside a version's weights, {} where there is none. Raises FtlibError for a damaged one."""
    file = folder / MANIFEST
    value = read_json(file, dict) or {}
    if (why := manifests.why_none(value)) is not None:
        raise damaged(file, why)
    return dict(value)


def _value(content: bytes, url: str, *required: str) -> dict[str, Any]:
    """A manifest, or what else is kept as JSON at a store. Raises FtlibError for a damaged one."""
    try:
        value = parse_json(content if len(content) <= MANIFEST_BYTES else b"")
        why = manifests.why_none(value, required)
    except ValueError as error:
        why = str(error)
    if why is None and not FILES.fullmatch(value.get("files", "x")):
        why = "its 'files' is no name of a folder"
    if why is not None:
        raise FtlibError(f"{url} is damaged ({why}), and a version is never written again: promote another.")
    return dict(value)


def next_number(there: list[int], given: dict[str, Any], where: Path | str) -> int:
    """One above all that there are and all that were ever given. Raises FtlibError where nobody knows what was given."""
    highest = given.get("highest", 0)
    if type(highest) is not int or highest < 0:
        raise FtlibError(f'{where} is damaged: write the highest number that was given, as in {{"highest": 7}}.')
    return max([highest, *there]) + 1


@contextlib.contextmanager
def staging_in(folder: Path) -> Iterator[Path]:
    """A new name in a folder for what is put together there, gone afterwards. What kills have left there goes first: beside
    each copy stands whose it is."""
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
