"""Rows in blocks of bounded size, and blocks as tables.

A table of a block has three columns: `_id`, `_from`, and `fields`, the other fields as JSON. Rows of one block may
differ in their fields and in the types of them, as JSON lines do; columns of Parquet may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ftlib.curate.rows import FROM, ID, Row, fields_of
from ftlib.curate.step import Note

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 8 * 2**20  # of a block's rows as JSON; as Python's objects they take about five times as much
BLOCK_ROWS = 20_000
FIELDS = "fields"
ENCODE = json.JSONEncoder(ensure_ascii=False, default=str, allow_nan=False).encode


def in_blocks(rows: Iterable[tuple[Row, int]]) -> Iterator[list[Row]]:
    """Rows, each with its size in bytes, in lists of at most BLOCK_ROWS rows and about BLOCK_BYTES."""
    block: list[Row] = []
    size = 0
    for row, length in rows:
        block.append(row)
        size += length
        if size >= BLOCK_BYTES or len(block) >= BLOCK_ROWS:
            yield block
            block, size = [], 0
    if block:
        yield block


def to_table(rows: Iterable[Row]) -> pa.Table:
    """The rows as a table."""
    import pyarrow as pa

    kept = list(rows)
    columns = [[row[ID] for row in kept], [row[FROM] for row in kept], [as_json(fields_of(row)) for row in kept]]
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in (ID, FROM, FIELDS)]))


def to_rows(table: pa.Table) -> list[Row]:
    """The rows of a table that `to_table` made."""
    ids, places, fields = (table[name].to_pylist() for name in (ID, FROM, FIELDS))
    return [{ID: key, FROM: place, **json.loads(text)} for key, place, text in zip(ids, places, fields, strict=True)]


def notes_table(notes: Iterable[tuple[str, str, Note]]) -> pa.Table:
    """Why rows were dropped or changed: (the step's key, dropped or changed, the note). What a changed row was is not
    kept: it may be what had to go."""
    import pyarrow as pa

    names = ("step", "what", ID, FROM, "reason", "detail", FIELDS)
    lines = [
        (step, what, note.row[ID], note.row[FROM], note.reason, note.detail,
         as_json(fields_of(note.row)) if what == "dropped" else None)
        for step, what, note in notes
    ]  # fmt: skip
    columns = [list(column) for column in zip(*lines, strict=True)] or [[] for _ in names]
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in names]))


def as_json(value: Any) -> str:
    """A value as JSON that every reader takes: half of a pair of surrogates is no character, and is replaced.
    Raises ValueError for NaN and infinity."""
    text = ENCODE(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
