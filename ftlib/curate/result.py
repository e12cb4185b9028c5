"""What a build leaves: files of JSON lines to train on, and files that say what became of every other row.

    train.jsonl  eval.jsonl  test.jsonl    the rows, in order, with _id and _from; eval and test where the recipe splits
    dropped/STEP.parquet                   rows that a step dropped: _id, _from, reason, detail, fields (JSON)
    changed/STEP.parquet                   rows that a step changed: _id, _from, reason, detail

The first three are a version of the data. What was dropped may hold what redact would have taken out, so it stays with
the blocks, and is in no version.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.curate.blocks import FIELDS, as_json, to_rows
from ftlib.curate.digest import digest_of
from ftlib.curate.documents.rows import with_text
from ftlib.curate.one_form import are_mixed, as_chat
from ftlib.curate.passes import notes_key
from ftlib.curate.rows import SPLIT, Row
from ftlib.curate.runner import Build
from ftlib.files.atomic import written_beside

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = ("train", "eval", "test")


def write_rows(build: Build, folder: Path) -> dict[str, dict[str, Any]]:
    """Writes the rows of a build into a folder: for each file its rows, its bytes and its SHA-256. Of several sources,
    rows of several forms become chats."""
    mixed = len(build.recipe.sources) > 1 and are_mixed(_rows(build))
    written: dict[str, dict[str, Any]] = {}
    with ExitStack() as opened:
        files: dict[str, Any] = {}
        hashes: dict[str, Any] = {}
        counts: Counter[str] = Counter()
        for block in build.blocks:
            for side, text in _lines(build.store.get(block.key), mixed):
                name = f"{side}.jsonl"
                if name not in files:
                    files[name], hashes[name] = opened.enter_context((folder / name).open("wb")), hashlib.sha256()
                files[name].write(text)
                hashes[name].update(text)
                counts[name] += text.count(b"\n")
    for side in SIDES:
        if (name := f"{side}.jsonl") in files:
            size = (folder / name).stat().st_size
            written[name] = {"rows": counts[name], "bytes": size, "sha256": hashes[name].hexdigest()}
    return written


def _rows(build: Build) -> Iterator[Row]:
    return (row for block in build.blocks for row in to_rows(build.store.get(block.key)))


def _lines(table: pa.Table, mixed: bool) -> Iterator[tuple[str, bytes]]:
    """The rows of a block as JSON lines, with the side that they are on: neighbours on one side together."""
    found: dict[str, list[str]] = {}
    for row in to_rows(table):
        side, written = row.pop(SPLIT, SIDES[0]), with_text(row)
        found.setdefault(side, []).append(as_json(as_chat(written) if mixed else written))
    for side, lines in found.items():
        yield side, "".join(f"{line}\n" for line in lines).encode()


def write_notes(build: Build, folder: Path) -> None:
    """Writes dropped/STEP.parquet and changed/STEP.parquet into a folder, one row group a block."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with ExitStack() as opened:
        writers: dict[str, Any] = {}
        for key in build.noted:
            notes = build.store.get(notes_key(key))
            for what, step in {(line["what"], line["step"]) for line in notes.select(["what", "step"]).to_pylist()}:
                of = notes.filter(pc.and_(pc.equal(notes["what"], what), pc.equal(notes["step"], step)))
                of = of.drop_columns(["what", "step", *([FIELDS] if what == "changed" else [])])
                name = f"{what}/{step}.parquet"
                if name not in writers:
                    staged = opened.enter_context(written_beside(folder / name))
                    writers[name] = opened.enter_context(pq.ParquetWriter(staged, of.schema, compression="zstd"))
                writers[name].write_table(of)


def sources_of(build: Build) -> list[dict[str, Any]]:
    """The files that the rows come from: each with its source, its SHA-256 (or a data set's fingerprint) and what the
    recipe says of its licence."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for part in build.parts:
        known = found.setdefault(
            (part.source, part.label),
            {"file": part.label, "kind": part.section.kind, "license": part.section.license, "path": part.path},
        )
        known.setdefault("pieces", []).append(part.content)
    for told in found.values():
        path, pieces = Path(told.pop("path")), told.pop("pieces")
        told["sha256"] = pieces[0] if len(pieces) == 1 else digest_of(path)
    return list(found.values())
