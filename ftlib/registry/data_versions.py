"""Versions of data in the registry: `data:tickets` is the newest, `data:tickets@3` one for ever.

They lie beside the versions of models, under a name that no model can have (`.data`), in the same backend: a folder or
a URL, with the same locks and numbers.

    <registry>/.data/<name>/current.json    {"version": 3, "history": [1, 2, 3]}
    <registry>/.data/<name>/<n>/            train.jsonl, eval.jsonl, test.jsonl, README.md, manifest.json

What is in a version is another's until it is checked: the files have the hashes that the manifest says, and the hash of
the version is made of these.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError, InputError, nearest
from ftlib.files.json_files import parse_json
from ftlib.files.paths import below
from ftlib.registry import backend as backends
from ftlib.registry.folder_backend import FolderBackend
from ftlib.registry.names import NAME, of_number
from ftlib.registry.staging import make_read_only
from ftlib.registry.store_backend import StoreBackend
from ftlib.registry.stored import Location

DATA = "data:"
KIND = "data"
SIDES = ("train", "eval", "test")
SAME = ("hash", "recipe", "sources")  # what makes two builds the same version
HASH = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"(train|eval|test)\.jsonl")

Backend = FolderBackend | StoreBackend


@dataclass(frozen=True)
class DataVersion:
    """A version of data, which is never written again."""

    name: str
    number: int
    place: Location

    @property
    def id(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def path(self) -> Path:
        """The folder with its files, brought from a URL where the registry is at one."""
        if isinstance(self.place, Path):
            return self.place
        return backends.objects(self.place).bring(self.name, self.number)

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest. Raises FtlibError for a damaged one."""
        told = _backend().manifest(self.name, self.number)
        if (why := why_no_manifest(told)) is not None:
            raise FtlibError(f"the manifest of {DATA}{self.id} is damaged ({why}): build it again.")
        return told

    @property
    def hash(self) -> str:
        """The hash of its rows."""
        return str(self.manifest["hash"])

    def file(self, side: str) -> Path | None:
        """The file of a side (train, eval, test), its hash checked; None where the version has none.

        Raises FtlibError where the file is another than the manifest says."""
        told = self.manifest["data"].get(f"{side}.jsonl")
        if told is None:
            return None
        file = below(self.path, f"{side}.jsonl", f"{DATA}{self.id}")
        if not file.is_file() or file.stat().st_size != told["bytes"] or _sha256(file) != told["sha256"]:
            raise FtlibError(f"{file} is not what {DATA}{self.id} was built with: build it again, or put it back.")
        return file


def hash_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The hash of a version: of the names and hashes of its files of rows."""
    told = "".join(f"{name}\0{files[name]['sha256']}\0" for name in sorted(files))
    return hashlib.sha256(told.encode()).hexdigest()


def why_no_manifest(told: Mapping[str, Any]) -> str | None:
    """What keeps a mapping from being the manifest of data, in a few words; None where nothing does."""
    files = told.get("data")
    if told.get("kind") != KIND or not isinstance(files, dict) or not files:
        return "it names no rows"
    for name, about in files.items():
        if not FILE.fullmatch(name) or not isinstance(about, dict):
            return "it names a file that is none of data"
        if not HASH.fullmatch(str(about.get("sha256"))) or not all(
            type(about.get(key)) is int for key in ("rows", "bytes")
        ):
            return f"it does not say what {name} is"
    return None if told.get("hash") == hash_of(files) else "its hash is not that of its files"


def register(
    name: str, fill: Callable[[Path], Mapping[str, Any]], card: Callable[[Mapping[str, Any]], str]
) -> DataVersion:
    """Makes what `fill` writes into a folder the next version of `name`; `fill` returns the manifest, with `data`:
    what each file is. `card` writes README.md of it. Where the newest version has the same rows, by the same
    recipe and of the same sources, it is that one."""
    place = _backend()
    check_name(name)
    with place.staging(name) as staged:
        staged.mkdir(exist_ok=True)
        told = {**fill(staged), "kind": KIND, "name": name}
        told["hash"] = hash_of(told["data"])
        newest = current(name) if place.alias(name) is not None else None
        if newest is not None and all(newest.manifest.get(key) == told.get(key) for key in SAME):
            return newest
        (staged / "README.md").write_text(card(told), encoding="utf-8")
        make_read_only(staged)
        place.carry(name, staged)
        with place.moving(name) as move:
            built = datetime.now(UTC).isoformat(timespec="seconds")
            number = place.publish(name, staged, lambda number: {**told, "version": number, "built": built})
            move({"version": number, "history": [*_history(place, name), number]})
    return DataVersion(name, number, place.at(name, number))


def names() -> list[str]:
    """The names of data that has a version, in order."""
    return _backend().names()


def versions(name: str) -> list[DataVersion]:
    """The versions of a name, oldest first. Raises InputError for an unknown name."""
    place = _known(name)
    return [DataVersion(name, number, place.at(name, number)) for number in place.numbers(name)]


def current(name: str) -> DataVersion:
    """The version that the bare name means. Raises InputError for an unknown name."""
    place = _known(name)
    history = _history(place, name)
    place.check(name, history[-1])
    return DataVersion(name, history[-1], place.at(name, history[-1]))


def resolve(reference: str) -> DataVersion:
    """`tickets`, `tickets@3` or either with `data:` before it. Raises InputError, with the nearest name or the versions
    there are."""
    name, at, number = reference.removeprefix(DATA).partition("@")
    if not at:
        return current(name)
    return of_number(versions(name), number, f"the data '{name}'")


def check_name(name: str) -> None:
    """Raises InputError for what cannot be a name."""
    if not NAME.fullmatch(name):
        raise InputError(f"'{name}' cannot be a name of data: use 1 to 64 of a-z, 0-9, '.', '_' and '-'.")


def _backend() -> Backend:
    return backends.beside(".data")


def _known(name: str) -> Backend:
    check_name(name)
    place = _backend()
    if place.alias(name) is None:
        known = place.names()
        there = f" There is {', '.join(known)}." if known else " There is none yet: ftlib data build RECIPE makes one."
        raise InputError(f"there is no data '{name}' in the registry.{nearest(name, known) or there}")
    return place


def _history(place: Backend, name: str) -> list[int]:
    content = place.alias(name)
    if content is None:
        return []
    try:
        history = parse_json(content)["history"]
        if history and all(type(number) is int and number > 0 for number in history):
            return list(history)
    except (ValueError, LookupError, TypeError):
        pass
    raise FtlibError(
        f'{place.alias_at(name)} is damaged: write {{"version": 1, "history": [1]}} into it, with the newest.'
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
