"""The index of a place at a URL (a run, or a trial of it): which state of each directory is meant, and what its files
are.

    {"machine": ..., "directories": {"adapter": "adapter.1f-2e"}, "contents": {"adapter": DIGEST},
     "files": {NAME: [DIGEST, ...]}, "signature": MAC}

It is one object, so it changes in one move, and it is signed: whoever can write to the bucket could choose what
`resume` and other machines run. It is written before the files that it names, which go up one by one, and once more
after them: until then it knows the last few states of each, and a kill between the two leaves a place that is believed.
A place can be put back as a whole to what it was: that was signed once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError, InputError
from ftlib.files import object_store
from ftlib.files.json_files import parse_json
from ftlib.files.paths import why_no_name
from ftlib.run import signature
from ftlib.run.layout import INDEX

KEPT = 4  # states of a file that count as signed
ABSENT = ""  # the state of a file that is not there yet
BYTES = 2**25
MARKED = re.compile(r"[a-z]+\.[0-9a-f]+-[0-9a-f]+")


@dataclass(frozen=True)
class Index:
    """What a place's index says. `signed` where it was written by whoever has the key that it was read with."""

    url: str
    machine: str | None = None
    directories: dict[str, str] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    signed: bool = False

    @property
    def is_there(self) -> bool:
        return self.machine is not None

    def after(self, files: dict[str, str]) -> Index:
        """The index with the digests of these files."""
        known = dict(self.files)
        for name, digest in files.items():
            states = known.get(name, [ABSENT])
            known[name] = states if states[-1] == digest else [*states, digest][-KEPT:]
        return replace(self, files=known)

    def why_not_file(self, name: str, file: Path) -> str | None:
        """What keeps a file that was brought from the place from being believed, as a part of a sentence."""
        digest = signature.digest_of(file) if file.exists() else ABSENT
        return None if self.signed and digest in self.files.get(name, []) else self._changed(name)

    def why_not_directory(self, name: str, folder: Path) -> str | None:
        """Why a directory that was brought from the place is not believed, as a part of a sentence."""
        whole = self.signed and signature.content_of(folder) == self.contents.get(name)
        return None if whole else self._changed(self.directories.get(name, name))

    def settled(self, names: Iterable[str]) -> Index:
        """The index once these files are uploaded as it has them: their earlier states do not count any more."""
        return replace(self, files={**self.files, **{name: self.files[name][-1:] for name in names}})

    def why_gone(self, name: str) -> str:
        """Why a directory that the index names and that is not there keeps the place from being believed."""
        return (
            self._changed(name) if not self.signed else f"{self.url}/{self.directories[name]} was removed by somebody"
        )

    def missing(self, there: Collection[str]) -> str | None:
        """Which file that the index knows is not among those that are there, as a sentence. None where none is
        missing."""
        gone = [name for name, states in sorted(self.files.items()) if ABSENT not in states and name not in there]
        return f"{self.url}/{gone[0]} was removed by somebody" if gone else None

    def _changed(self, name: str) -> str:
        if not self.signed:
            return f"{self.url}/{INDEX} is not signed by you, and {name} with it"
        return f"{self.url}/{name} is not as you have signed it"


def read_index(url: str, key: str = "") -> Index:
    """The index at a URL. Raises FtlibError for a damaged one."""
    content = object_store.read(f"{url}/{INDEX}")
    if content is None:
        return Index(url)
    try:
        told = parse_json(content if len(content) <= BYTES else b"")
        index = _parsed(url, told)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise FtlibError(f"{url}/{INDEX} is damaged: remove it, and what was not copied elsewhere is lost.") from None
    signed = bool(key) and signature.matches(told.get("signature"), url, _content(index), key=key)
    return replace(index, signed=signed)


def write_index(index: Index, key: str = "") -> None:
    """Puts an index where its place is, signed where there is a key."""
    content = _content(index)
    told = json.loads(content) | ({"signature": signature.mac(index.url, content, key=key)} if key else {})
    object_store.put_bytes(json.dumps(told).encode(), f"{index.url}/{INDEX}")


def _content(index: Index) -> str:
    fields = {"machine": index.machine, "directories": index.directories}
    return json.dumps({**fields, "contents": index.contents, "files": index.files}, sort_keys=True)


def _parsed(url: str, told: Any) -> Index:
    """Raises ValueError, LookupError, TypeError or AttributeError for what `write_index` has not written."""
    directories, files = dict(told["directories"]), dict(told.get("files", {}))
    contents = dict(told.get("contents", {}))
    for name, marked in directories.items():
        if not MARKED.fullmatch(marked) or marked.partition(".")[0] != name:
            raise InputError(f"{url}/{INDEX} names '{marked[:80]!r}' as its {name}, which is no directory of it.")
    if any(why_no_name(name) or not isinstance(states, list) for name, states in files.items()):
        raise ValueError(files)
    if not isinstance(told["machine"], str):
        raise TypeError(told["machine"])
    return Index(url, told["machine"], directories, contents, files)
