"""A document: its blocks in the order in which a person reads them, each with the page or the line it stands on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["heading", "paragraph", "list", "table", "code"]


@dataclass(frozen=True, slots=True)
class Block:
    """One block. The text of a table is Markdown, that of code keeps its lines, that of a list has a line an item.

    `first` and `last` are pages or lines, from 1; 0 where a format has neither. `level` is that of a heading, from 1.
    """

    kind: Kind
    text: str
    first: int = 0
    last: int = 0
    level: int = 0


@dataclass(frozen=True)
class Document:
    """`blocks` is read once, as the file is: a fault further on is a DataError there.

    `name` is what a person knows the file by. `unit` says what blocks count. `notes` are sentences about what could not
    be read (pages that are pictures).
    """

    name: str
    blocks: Iterator[Block]
    unit: Literal["page", "line", ""] = ""
    notes: tuple[str, ...] = ()

    def where(self, first: int, last: int) -> str:
        """The place of blocks as a row's `_from` has it: `manual.pdf#page=12-13`, `notes.md:17-20`."""
        if not (self.unit and first):
            return self.name
        span = f"{first}" if first == last else f"{first}-{last}"
        return f"{self.name}#page={span}" if self.unit == "page" else f"{self.name}:{span}"
