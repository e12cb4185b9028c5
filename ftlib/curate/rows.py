"""A row: a plain dict of fields, three of them reserved. Which of its texts count, and how they are changed.

_id    16 hex digits: of the content of the row's source and its place there; of a child, of its parent's and its
       number. Two builds of the same files give the same ids.
_from  where it comes from, for a person: manual.pdf#page=12, tickets.csv:17; of a child, the _from of its parent
    _split where the row goes (train, eval or test), once the step split has said so
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Row = dict[str, Any]

ID, FROM, SPLIT = "_id", "_from", "_split"
RESERVED = (ID, FROM, SPLIT)
NAMES = ("document", "unit", "headings")  # fields that say what a row is of, and are no text of it unless asked for
NO_TEXT = ("role", "from", "kind")  # keys of a turn, or of a document's block, that are no text of anybody's


def row_id(content: str, place: int | str) -> str:
    """The id of a row: `content` is the hash of its source's content, `place` where it stands there."""
    return hashlib.sha256(f"{content}\0{place}".encode()).hexdigest()[:16]


def child(parent: Row, number: int, fields: dict[str, Any]) -> Row:
    """A row that was made of another one, the `number`-th of it."""
    return {ID: row_id(parent[ID], number), FROM: parent[FROM], **fields}


def fields_of(row: Row) -> dict[str, Any]:
    """A row without what it is known by."""
    return {name: value for name, value in row.items() if name not in (ID, FROM)}


def texts_of(row: Row, fields: Sequence[str] | None = None, but: str | None = None) -> list[str]:
    """The texts of a row, in order, also those within lists and mappings (turns); who speaks is no text. `fields`: of
    these fields alone; `but`: of all but this one."""
    return [text for name in _named(row, fields) if name != but for text in _within(row[name])]


def text_of(row: Row, fields: Sequence[str] | None = None, but: str | None = None) -> str:
    """The texts of a row as one, a line break between them."""
    return "\n".join(texts_of(row, fields, but))


def with_texts(row: Row, change: Callable[[str], str], fields: Sequence[str] | None = None) -> Row:
    """The row with `change` done to each text that `texts_of` finds. The row itself where nothing changes."""
    changed = {name: _changed(row[name], change) for name in _named(row, fields)}
    return {**row, **changed} if any(changed[name] != row[name] for name in changed) else row


def _named(row: Row, fields: Sequence[str] | None) -> list[str]:
    unasked = NAMES if fields is None else ()
    return [name for name in row if name not in (*RESERVED, *unasked) and (fields is None or name in fields)]


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _within(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in NO_TEXT:
                yield from _within(item)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    if isinstance(value, dict):
        return {key: item if key in NO_TEXT else _changed(item, change) for key, item in value.items()}
    return value
