"""Tables of a file as rows that know where they stand: CSV, TSV, JSON, JSON Lines and Parquet (`ftlib.data.read`), and
XLSX (`tickets.xlsx:Sheet1:17`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlib.curate.documents import archives
from ftlib.curate.optional import needed
from ftlib.data.read import READERS, Row
from ftlib.errors import DataError

LONGEST_LINE = 64 << 20  # bytes of a line of .csv, .tsv and .jsonl
LARGEST_LIST = 1 << 30  # bytes of a .json file, which is read whole
MOST_COLUMNS = 1_000
STEP = 1 << 20
TABLES = (*READERS, ".xlsx")


def read_table(name: str, path: Path) -> Iterator[Row]:
    """The rows, in order. A row that cannot be read says so in `problem`; a file that cannot is a DataError."""
    suffix = path.suffix.lower()
    if path.stat().st_size == 0:
        raise DataError(f"{name} is empty.")
    if suffix == ".xlsx":
        yield from _sheets(name, path)
        return
    if suffix == ".json" and path.stat().st_size > LARGEST_LIST:
        raise DataError(f"{name}: a list of {path.stat().st_size >> 20} MiB is too large to read. Write it as .jsonl.")
    if suffix in (".csv", ".tsv", ".jsonl"):
        _refuse_long_lines(name, path)
    try:
        yield from READERS[suffix](name, path, True)
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start}).") from error


def _refuse_long_lines(name: str, path: Path) -> None:
    """Reads the file once, a MiB at a time: a reader of lines would take a line of any length into memory."""
    line, length = 1, 0
    with path.open("rb") as file:
        while part := file.read(STEP):
            first, *_ = ends = part.split(b"\n")
            length = length + len(first) if len(ends) == 1 else len(ends[-1])
            line += len(ends) - 1
            if length > LONGEST_LINE:
                raise DataError(f"{name}:{line}: the line has more than {LONGEST_LINE >> 20} MiB: it is no row.")


def _sheets(name: str, path: Path) -> Iterator[Row]:
    """The rows of every sheet; the first row of a sheet names its columns. Formulas are read as their last values."""
    needed("openpyxl")
    import openpyxl

    with archives.opened(name, path, "xl/workbook.xml"):
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        except Exception as error:  # openpyxl raises what its parsers raise
            raise DataError(f"{name}: it is no XLSX file, or a broken one.") from error
    try:
        for sheet in book.worksheets:
            yield from _rows(f"{name}:{sheet.title}", sheet)
    finally:
        book.close()


def _rows(label: str, sheet: Any) -> Iterator[Row]:
    names: list[str] | None = None
    for number, cells in enumerate(sheet.iter_rows(values_only=True, max_col=MOST_COLUMNS), 1):
        if all(cell is None for cell in cells):
            continue
        if names is None:
            names = ["" if cell is None else str(cell).strip() for cell in cells]
            continue
        fields = {column: _value(cell) for column, cell in zip(names, cells, strict=False) if column}
        yield Row(f"{label}:{number}", fields)


def _value(cell: Any) -> Any:
    """Text, a number or a truth; a date is its ISO text, an empty cell is empty text."""
    if cell is None:
        return ""
    return (
        cell
        if isinstance(cell, str | int | float | bool)
        else cell.isoformat()
        if hasattr(cell, "isoformat")
        else str(cell)
    )
