"""Cells that are empty, or hold what nobody meant to write there, with the places where they stand."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ftlib.data.read import Row

SHOWN = 5  # places of a finding that are kept
EMPTY = {
    "",
    "nan",
    "null",
    "none",
    "n/a",
    "na",
    "#n/a",
    "#ref!",
    "#value!",
    "-",
    "?",
    "undefined",
    "[deleted]",
    "[removed]",
}
MOJIBAKE = re.compile("Ã[\u0080-\u00bf]|â€[™œ\u009d“”¦]|Â[\u00a0-\u00bf]|ï»¿")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\ufeff]")
MARKUP = re.compile(
    r"&(?:amp|lt|gt|quot|nbsp|#\d{2,5});|</?(?:p|br|div|span|a|b|i|li|ul|td|tr)\b[^<>]{0,200}>", re.IGNORECASE
)
ODD: dict[str, Callable[[str], Any]] = {
    "has characters that could not be read (\ufffd)": lambda text: "\ufffd" in text,
    "is in a wrong encoding (as Ã© for é)": MOJIBAKE.search,
    "has control characters or characters without width": CONTROL.search,
    "has HTML in it": MARKUP.search,
}


@dataclass(frozen=True, slots=True)
class OddCells:
    """What is odd about `count` cells of a column, and where the first of them are."""

    column: str
    what: str
    count: int
    where: tuple[str, ...]


def odd_cells(rows: Iterable[Row]) -> list[OddCells]:
    """What stands in the cells of all columns, the most frequent first. Nested values (turns) are looked into."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        for column, value in row.fields.items():
            for what in _of(value):
                found[column, what].append(row.where)
    listed = [OddCells(column, what, len(at), tuple(at[:SHOWN])) for (column, what), at in found.items()]
    return sorted(listed, key=lambda cells: -cells.count)


def _of(value: Any) -> Iterable[str]:
    if value is None or (isinstance(value, str) and value.strip().lower() in EMPTY) or value == []:
        return ("is empty",)
    text = _text(value)
    return [what for what, is_so in ODD.items() if is_so(text)]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(map(_text, value.values()))
    return "\n".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
