"""The rows of a data set as the report compares them: where each stands, what it asks, what it answers, its gist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ftlib.curate.asked import asked_and_answered
from ftlib.curate.near_duplicates import Signatures, signatures
from ftlib.data.fields import BadRow, Unweighted
from ftlib.data.findings import Gist, gist
from ftlib.data.formats import normalize
from ftlib.data.read import Row

BLOCK = 10_000  # texts whose signatures are made at once


@dataclass(frozen=True)
class Collected:
    """The rows of one file that can be used, and why the first of the others cannot."""

    name: str
    rows: Sequence[Row]
    where: list[str]
    asked: list[str]
    answered: list[str]
    gists: list[Gist]
    bad: list[str]

    def __len__(self) -> int:
        return len(self.where)

    @cached_property
    def texts(self) -> list[str]:
        """All that each row says."""
        return ["\n".join(filter(None, pair)) for pair in zip(self.asked, self.answered, strict=True)]

    @cached_property
    def signatures(self) -> Signatures:
        """By which near duplicates are found."""
        blocks = range(0, len(self), BLOCK)
        return Signatures.joined([signatures(self.texts[at : at + BLOCK]) for at in blocks])


def collected(name: str, format_name: str, rows: Sequence[Row]) -> Collected:
    """Rows, read as a format; those of weight 0 are left out."""
    found = Collected(name, rows, [], [], [], [], [])
    for row in rows:
        try:
            if row.problem:
                raise BadRow(row.problem)
            record = normalize(format_name, row.fields)
        except Unweighted:
            continue
        except BadRow as reason:
            found.bad.append(f"{row.where}: {reason}")
            continue
        asked, answered = asked_and_answered(record)
        found.where.append(row.where)
        found.asked.append(asked)
        found.answered.append(answered)
        found.gists.append(gist(record))
    return found
