"""Files, folders and Hub data sets as rows that know where they stand.

A row of a line-based file is known as `train.jsonl:17`, one of a JSON list as `train.json: item 17`, one of a table
without lines as `train.parquet: row 17`. What is wrong with a whole file is a DataError; what is wrong with one row
travels in `Row.problem`, so that `data.on_bad_row` decides.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ftlib.config.data import DataSection
from ftlib.errors import DataError, nearest
from ftlib.files import hub
from ftlib.files.object_store import local_copy

LONGEST_CELL = 2**26  # characters: above any document; what is longer is a quote that nobody closes
PEEK = 20  # rows whose columns stand for the columns of the data
QUOTED_CELL = re.compile(r'(?<![^\t\r\n])"[^"]*(?:""[^"]*)*"(?=[\t\r\n]|$)')  # of a .tsv file
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row, and where it stands; `problem` says why the fields could not be read."""

    where: str
    fields: dict[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class Source:
    """What `data.train` or `data.eval` (`key`) names: files, each with the name a person knows it by, or a table."""

    key: str
    name: str
    files: tuple[tuple[str, Path], ...] = ()
    table: Any = None  # a datasets.Dataset from the Hub

    def digest(self) -> str:
        """The SHA-256 of the contents; of the name and the fingerprint for a Hub data set."""
        sha = hashlib.sha256()
        for label, path in self.files:
            with path.open("rb") as file:
                sha.update(f"{label}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
        if self.table is not None:
            sha.update(f"{self.name}\0{self.table._fingerprint}".encode())
        return sha.hexdigest()

    def rows(self, *, header: bool) -> Iterator[Row]:
        """Every row, in order. Raises DataError when a file cannot be read any further."""
        for label, path in self.files:
            try:
                yield from READERS[path.suffix.lower()](label, path, header)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}: not {error.encoding.upper()} text ({error.reason} at byte {error.start})."
                ) from error
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
        if self.table is not None:
            for number, fields in enumerate(self.table, 1):
                yield Row(f"{self.name}: row {number}", without_fillers(fields))


def is_local(name: str) -> bool:
    """Whether a name can only be a file or a folder of this machine, there or not."""
    if "://" in name:
        return False
    path = Path(name).expanduser()
    return path.exists() or path.suffix.lower() in READERS or not HUB_NAME.fullmatch(name)


def find_source(key: str, data: DataSection, called: str = "") -> Source:
    """What the key `train` or `eval` of `data` names. Raises DataError for no file, no folder and nothing on the Hub.

    `called` stands for the key in messages: 'replay.train' for the rows that `data.replay` mixes in.
    """
    name = getattr(data, key)
    key = called or key
    path = Path(local_copy(f"data.{key}", name)).expanduser()
    if path.is_dir():
        inside = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in READERS and entry.is_file())
        files = tuple((str(entry.relative_to(path)), entry) for entry in inside)
        if not files:
            raise DataError(f"data.{key}: the folder {path} holds no {_known()} file.")
    elif path.exists():
        if path.suffix.lower() not in READERS:
            raise DataError(f"data.{key}: '{name}' does not end in {_known()}: convert it, or rename it.")
        files = ((path.name, path),)
    else:
        return Source(key, name, table=_from_hub(key, name, data))
    for _, file in files:
        if file.stat().st_size == 0:
            raise DataError(f"data.{key}: {file} is empty.")
    return Source(key, name, files)


def read_rows(source: Source, data: DataSection) -> list[Row]:
    """The first `data.max_rows` rows with `data.columns` renamed to ours. Raises DataError when there is no row, or
    when `data.columns` names a column that is not there."""
    delimited = all(path.suffix.lower() in (".csv", ".tsv") for _, path in source.files) and source.table is None
    positions = delimited and bool(data.columns) and all(theirs.isdecimal() for theirs in data.columns.values())
    rows = list(islice(source.rows(header=not positions), data.max_rows))
    if not rows:
        raise DataError(f"data.{source.key}: '{source.name}' holds no rows.")
    there = columns_of(rows)
    for column in data.ignore_columns:
        if there and column not in there and source.key == "train":
            listed = ", ".join(map(shorten, there))
            raise DataError(
                f"data.ignore_columns: '{column}' is no column of {source.name}, which has: {listed}."
                + nearest(column, there)
            )
    for ours, theirs in data.columns.items():
        if there and theirs not in there:
            listed = ", ".join(shorten(column) for column in there)
            raise DataError(
                f"data.columns.{ours}: '{theirs}' is no column of {source.name}, which has: {listed}."
                + nearest(theirs, there)
            )
    if not (data.columns or data.ignore_columns):
        return rows
    ignored = set(data.ignore_columns)
    kept = ((row, {name: value for name, value in row.fields.items() if name not in ignored}) for row in rows)
    return [replace(row, fields=_rename(fields, data.columns)) for row, fields in kept]


def without_fillers(value: Any) -> Any:
    """What stands within the fields of a table's row, without the nulls by which Arrow gives all mappings of a column
    the same keys: as TRL reads tools and calls."""
    if not isinstance(value, dict):
        return [_filled(item) for item in value] if isinstance(value, list) else value
    return {key: _filled(item) for key, item in value.items()}


def columns_of(rows: Iterable[Row]) -> list[str]:
    """The columns of the first rows, in the order of their appearance."""
    return list(dict.fromkeys(column for row in islice(rows, PEEK) for column in row.fields))


def shorten(column: str) -> str:
    """A column's name for an error message: without a header, a whole review may stand in its place."""
    return column if len(column) <= 40 else f"{column[:37]}..."


def _filled(value: Any) -> Any:
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items() if item is not None}
    return value


def _rename(fields: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    taken = set(columns.values())
    kept = {name: value for name, value in fields.items() if name not in taken}
    return kept | {ours: fields[theirs] for ours, theirs in columns.items() if theirs in fields}


def _known() -> str:
    *most, last = READERS
    return f"{', '.join(most)} or {last}"


def _from_hub(key: str, name: str, data: DataSection) -> Any:
    path = Path(name).expanduser()
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(path.name, beside)
    if path.suffix.lower() in READERS or not HUB_NAME.fullmatch(name):
        raise DataError(f"data.{key}: no such file or folder: '{name}'.{hint}")
    import datasets

    hub.look_once()
    try:
        return datasets.load_dataset(name, data.hub_config, split=data.hub_split)
    except Exception as error:  # the Hub's client and its transports raise dozens of kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"data.{key}: '{name}' is neither a file nor a folder, and the Hub did not give it: {reason}.{hint}"
        ) from error


def _object(where: str, text: str) -> Row:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return Row(where, {}, f"not valid JSON ({error.msg} at character {error.pos + 1})")
    except (ValueError, RecursionError) as error:  # an endless number, or brackets without end
        return Row(where, {}, f"not usable JSON ({error})")
    return _row(where, value)


def _row(where: str, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(where, value)
    return Row(where, {}, f"a row must be an object with named fields, but this is a {type(value).__name__}")


def _json_lines(label: str, path: Path, _header: bool) -> Iterator[Row]:
    with path.open(encoding=_encoding(path)) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(f"{label}:{number}", line)


def _json_list(label: str, path: Path, _header: bool) -> Iterator[Row]:
    try:
        value = json.loads(path.read_text(encoding=_encoding(path)))
    except json.JSONDecodeError as error:
        hint = " If every line is an object of its own, name it .jsonl." if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}.{hint}") from error
    except RecursionError as error:
        raise DataError(f"{path}: not usable JSON: it is nested too deeply.") from error
    lists = [member for member in value.values() if isinstance(member, list)] if isinstance(value, dict) else [value]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise DataError(f"{path}: a .json file must hold a list of rows, but this is a {type(value).__name__}.")
    for number, item in enumerate(lists[0], 1):
        yield _row(f"{label}: item {number}", item)


def _encoding(path: Path) -> str:
    """UTF-16 where a file begins with the mark of that (as Excel and PowerShell write it), else UTF-8."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _delimited(usual: str) -> Callable[[str, Path, bool], Iterator[Row]]:
    def read(label: str, path: Path, header: bool) -> Iterator[Row]:
        csv.field_size_limit(LONGEST_CELL)  # the default refuses documents above 128 KiB
        delimiter = ";" if usual == "," and header and _has_semicolons(path) else usual
        quoting = csv.QUOTE_MINIMAL if usual == "," or _is_quoted(path, delimiter) else csv.QUOTE_NONE
        with path.open(encoding=_encoding(path), newline="") as file:
            # strict: an unclosed quote is an error, where the default swallows the rest of the file
            reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
            try:
                yield from _cells(label, reader, header)
            except csv.Error as error:
                raise DataError(f"{path}:{reader.line_num}: not valid {path.suffix[1:].upper()}: {error}.") from error

    return read


def _has_semicolons(path: Path) -> bool:
    """Whether semicolons part the columns of a file, as where a comma is a number's: by its header."""
    with path.open(encoding=_encoding(path), newline="") as file:
        header = [next(iter(file), "")]
    by_comma, by_semicolon = (next(csv.reader(header, delimiter=delimiter), []) for delimiter in ",;")
    return len(by_comma) == 1 < len(by_semicolon)


def _is_quoted(path: Path, delimiter: str) -> bool:
    """Whether the quotes of a file are those of a program (pandas, Excel) and not of its texts, as in SST-2's files: no
    quote stands within a cell that none opens, and read as a program's, every row is whole."""
    with path.open(encoding=_encoding(path), newline="") as file:
        text = file.read()
    if '"' in QUOTED_CELL.sub("", text):
        return False
    whole, bare = (_widths(text, delimiter, quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE))
    return len(whole) < 2 or _uneven(whole) <= _uneven(bare)


def _widths(text: str, delimiter: str, quoting: int) -> Counter[int]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    return Counter(len(cells) for cells in reader if cells)


def _uneven(widths: Counter[int]) -> int:
    return widths.total() - max(widths.values())


def _cells(label: str, reader: Any, header: bool) -> Iterator[Row]:
    names: list[str] | None = None
    first_line = 1  # a quoted cell may span lines: a row is known by its first
    for cells in reader:
        where, first_line = f"{label}:{first_line}", reader.line_num + 1
        if not cells:
            continue
        if names is None:
            names = cells if header else [str(position) for position in range(len(cells))]
            if header:
                continue
        if len(cells) == len(names):
            yield Row(where, dict(zip(names, cells, strict=True)))
        else:
            yield Row(where, {}, f"it has {len(cells)} cells where the first line has {len(names)}")


def _parquet(label: str, path: Path, _header: bool) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(f"{label}: row {number}", without_fillers(fields))
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from error


READERS: dict[str, Callable[[str, Path, bool], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".parquet": _parquet,
}
