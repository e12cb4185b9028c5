"""How names and numbers of versions are spelled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from ftlib.errors import InputError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
ALIAS_BYTES = 2**20  # of the file that says which version a name means


class Numbered(Protocol):
    """A version of a model or of data."""

    @property
    def number(self) -> int: ...

    @property
    def id(self) -> str: ...


V = TypeVar("V", bound=Numbered)


def of_number(versions: Sequence[V], number: str, what: str) -> V:
    """The version of this number, as a person writes it. Raises InputError with those that there are; `what` names
    whose versions they are."""
    for version in versions:
        if number == str(version.number):
            return version
    raise InputError(f"{what} has no version '{number}': there is {', '.join(version.id for version in versions)}.")
