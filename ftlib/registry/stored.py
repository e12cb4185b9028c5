"""What is kept of a version as JSON, in a folder or at a store: written, read back, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError
from ftlib.files.json_files import damaged, parse_json, read_json
from ftlib.run import manifest as manifests
from ftlib.run.layout import MANIFEST

MANIFEST_BYTES = 2**24  # it holds an experiment, whose space may list many points
FILES = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")  # no separator: a folder below files/, and no other

Location = Path | str  # of a version: its folder, or the URL of its registry
Manifest = Callable[[int], dict[str, Any]]  # of a version, once it has a number
Move = Callable[[dict[str, Any]], None]  # writes an alias


def manifest_in(folder: Path) -> dict[str, Any]:
    """The manifest beside a version's weights, {} where there is none. Raises FtlibError for a damaged one."""
    file = folder / MANIFEST
    value = read_json(file, dict) or {}
    if (why := manifests.why_none(value)) is not None:
        raise damaged(file, why)
    return dict(value)


def parsed(content: bytes, url: str, *required: str) -> dict[str, Any]:
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


def as_json(value: dict[str, Any]) -> bytes:
    """A mapping as the bytes that are written at a store."""
    return json.dumps(value, indent=2, default=str).encode() + b"\n"


def next_number(there: list[int], given: dict[str, Any], where: Path | str) -> int:
    """One above all numbers that exist and all that were ever given. Raises FtlibError where it is not known what was
    given."""
    highest = given.get("highest", 0)
    if type(highest) is not int or highest < 0:
        raise FtlibError(f'{where} is damaged: write the highest number that was given, as in {{"highest": 7}}.')
    return max([highest, *there]) + 1


def gone(name: str, number: int, where: Location) -> FtlibError:
    """The error where a name means a version whose files are gone."""
    return FtlibError(f"{name}@{number} is what '{name}' means, but {where} is gone: put it back there.")
