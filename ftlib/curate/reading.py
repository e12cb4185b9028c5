"""A part of a source as rows, and these as blocks in the store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ftlib.config.recipe import SourceSection
from ftlib.curate.blocks import as_json, in_blocks, notes_table, to_table
from ftlib.curate.documents.rows import NOTES
from ftlib.curate.passes import Done, counts_of, notes_key
from ftlib.curate.rows import FROM, ID, RESERVED, Row, row_id
from ftlib.curate.sources import Part
from ftlib.curate.step import Result
from ftlib.curate.store import Store, key_of
from ftlib.data import read as files
from ftlib.data.sampled import sampled
from ftlib.errors import DataError, nearest

PROBLEM = "_problem"  # of a row that could not be read: why
READ = "read"  # stands for a step's key where rows cannot be read
VERSION = 1  # raise it when the same file comes to give other rows
OURS = re.compile(r"[0-9a-f]{16}")  # an id of a row that ftlib has made


def read_parts(store: Store, parts: Sequence[Part]) -> list[Done]:
    """The blocks of parts, from the store where they are there. Raises DataError for what cannot be read further."""
    key = key_of(VERSION, [part.key for part in parts])
    about = store.about(key)
    if about is None:
        rows = (row for part in parts for row in _sized(part))
        blocks = enumerate(in_blocks(rows))
        about = {"blocks": [_block(store, key_of(key, place), block) for place, block in blocks]}
        store.put(key, to_table([]), about)
    return [Done(**block) for block in about["blocks"]]


def _block(store: Store, own: str, rows: list[Row]) -> dict[str, Any]:
    """Writes a block, unless it is there: a build that was cut short has left it."""
    if store.about(own) is None:
        result = _sorted(rows)
        notes = [(READ, "dropped", note) for note in result.dropped]
        notes += [(READ, "changed", note) for note in result.changed]
        store.put(notes_key(own), notes_table(notes))
        store.put(
            own, to_table(result.kept), {"rows": len(result.kept), "counts": {READ: counts_of(len(rows), result)}}
        )
    about = store.about(own)
    assert about is not None
    return {"key": own, **about}


def _sorted(rows: list[Row]) -> Result:
    """Rows that were read, those that could not be, and those of which a part could not be."""
    result = Result()
    for row in rows:
        notes = row.pop(NOTES, ())
        if PROBLEM in row:
            result.drop({ID: row[ID], FROM: row[FROM]}, "unreadable", row[PROBLEM])
        elif notes:
            result.change(row, "not all read", " ".join(notes))
        else:
            result.keep(row)
    return result


def _sized(part: Part) -> Iterator[tuple[Row, int]]:
    """The rows of a part with their sizes in bytes."""
    checked = False
    for number, read in enumerate(READERS[part.section.kind](part)):
        begun = {ID: row_id(part.content, f"{part.label}:{number}"), FROM: read.where}
        if read.problem:
            yield {**begun, PROBLEM: read.problem}, 100
            continue
        if not checked:
            _check_columns(part.section, read.fields)
            checked = True
        fields = _named(part.section, read.fields)
        try:
            yield {**begun, **_lineage(part, fields)}, len(as_json(fields))
        except ValueError:
            yield {**begun, PROBLEM: "it holds a number that JSON does not have (NaN or infinity)"}, 100


def _check_columns(section: SourceSection, fields: dict[str, Any]) -> None:
    """Raises DataError where a column that the recipe names is not there."""
    for ours, theirs in section.columns.items():
        if theirs not in fields:
            raise DataError(
                f"from: columns.{ours}: '{theirs}' is no column of {section.place}, which has: "
                f"{', '.join(map(files.shorten, fields))}.{nearest(theirs, fields)}"
            )
    have = {*fields, *section.columns}
    for name in section.only:
        if name not in have:
            raise DataError(f"from: only: '{name}' is no column of {section.place}.{nearest(name, have)}")


def _named(section: SourceSection, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields by their new names, those that are kept."""
    taken = set(section.columns.values())
    named = {ours: fields[theirs] for ours, theirs in section.columns.items() if theirs in fields}
    named = {name: value for name, value in fields.items() if name not in taken} | named
    return {name: value for name, value in named.items() if name in section.only} if section.only else named


def _lineage(part: Part, fields: dict[str, Any]) -> dict[str, Any]:
    """A row that another build of ftlib made keeps what it says of itself. Raises DataError for a column that has one
    of ftlib's names and is not its."""
    if any(name in fields for name in RESERVED):
        key, place = fields.get(ID), fields.get(FROM)
        if not (isinstance(key, str) and OURS.fullmatch(key) and isinstance(place, str)):
            raise DataError(f"{part.label}: its columns {ID} and {FROM} are not ftlib's: rename them in from.columns.")
    return fields


# --- readers of parts ---------------------------------------------------------------------------------------------


def _lines(part: Part) -> Iterator[files.Row]:
    """The JSON lines of a piece."""
    if part.end is None:
        yield from files.READERS[".json"](part.label, Path(part.path), True)
        return
    with Path(part.path).open("rb") as file:
        file.seek(part.start)
        number = part.line
        while file.tell() < part.end:
            line = file.readline()
            if line.strip():
                yield _object(f"{part.label}:{number}", line.removeprefix(b"\xef\xbb\xbf"))
            number += 1


def _object(where: str, line: bytes) -> files.Row:
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        return files.Row(where, {}, "it is no UTF-8 text")
    except json.JSONDecodeError as error:
        return files.Row(where, {}, f"it is no JSON ({error.msg} at character {error.pos + 1})")
    except (ValueError, RecursionError) as error:  # an endless number, or brackets without end
        return files.Row(where, {}, f"it is no usable JSON ({error})")
    if not isinstance(value, dict):
        return files.Row(where, {}, f"it is a {type(value).__name__}, not an object with named fields")
    return files.Row(where, value)


def _table(part: Part) -> Iterator[files.Row]:
    """The rows of a file that experiments read too."""
    path = Path(part.path)
    source = files.Source("from", part.label, ((part.label, path),))
    suffix = path.suffix.lower()
    if suffix not in files.READERS:
        raise DataError(f"{path}: a {part.section.kind} source whose name does not end in .{part.section.kind}.")
    yield from source.rows(header=True)


def _document(part: Part) -> Iterator[files.Row]:
    """A document as one row. One that cannot be read is a row that cannot: the others are read all the same."""
    from ftlib.curate.documents.formats import read_document
    from ftlib.curate.documents.rows import fields_of_document

    try:
        yield files.Row(part.label, fields_of_document(read_document(Path(part.path), part.label)))
    except DataError as error:
        yield files.Row(part.label, {}, str(error).rstrip("."))


def _sheets(part: Part) -> Iterator[files.Row]:
    from ftlib.curate.documents.tables import read_table

    yield from read_table(part.label, Path(part.path))


def _hub(part: Part) -> Iterator[files.Row]:
    for number, fields in enumerate(hub_table(part.section), 1):
        yield files.Row(f"{part.label}: row {number}", files.without_fillers(fields))


def _log(part: Part) -> Iterator[files.Row]:
    for chat in sampled(part.path, until=part.section.until):
        yield files.Row(f"{part.label} {chat.request}", {"messages": chat.messages})


def hub_table(section: SourceSection) -> Any:
    """A data set of the Hub. Raises DataError where the Hub does not give it."""
    from ftlib.config.data import DataSection

    asked = DataSection(train=section.place, hub_config=section.config, hub_split=section.split)
    return files.find_source("train", asked, f"from: {section.place}").table


READERS: dict[str, Callable[[Part], Iterator[files.Row]]] = {
    "jsonl": _lines,
    "csv": _table,
    "tsv": _table,
    "parquet": _table,
    "xlsx": _sheets,
    "hub": _hub,
    "log": _log,
    **dict.fromkeys(("pdf", "html", "docx", "text"), _document),
}
