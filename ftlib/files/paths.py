"""Names that come from elsewhere, made into paths: of objects at a URL, of an archive's members, of what an index
tells.

Nobody else joins such a name to a folder. A name can hold anything: `..`, a root, a line end that looks like two names.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from ftlib.errors import InputError

LONGEST_PART = 200  # bytes: file systems take 255, and a file is staged under a longer name
LONGEST = 1024  # bytes: what object stores take for a whole name
DEEPEST = 32
DRIVE = re.compile(r"[A-Za-z]:")
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control characters and others that a person does not see
SHOWN = 80  # characters of a bad name that a message repeats


def below(folder: Path, name: str, source: str) -> Path:
    """The path below `folder` of what `source` (a URL, an archive) calls `name`, for example `trials/000/status.json`.

    Raises InputError where the name is no plain relative path, or where a link stands on its way.
    """
    why = why_no_name(name) or _link_on_the_way(folder, name)
    if why is not None:
        shown = name.encode("unicode_escape", "backslashreplace").decode()[:SHOWN]
        raise InputError(f"{source} holds '{shown}', which {why}: nothing was written for it.")
    return folder / name


def why_no_name(name: str) -> str | None:
    """What keeps a name from being a relative path, to be read after it; None where nothing does."""
    parts = name.split("/")
    if name.startswith("/") or DRIVE.match(name):
        return "is an absolute path"
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of its folder or has an empty part"
    if "\\" in name:
        return "has a backslash"
    if any(unicodedata.category(character) in UNSEEN for character in name):
        return "has a control character"
    if max(len(part.encode()) for part in parts) > LONGEST_PART or len(name.encode()) > LONGEST or len(parts) > DEEPEST:
        return "is too long"
    return None


def _link_on_the_way(folder: Path, name: str) -> str | None:
    path = folder
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            return "goes through a symbolic link"
    return None
