"""Rows of tables and where they stand."""

from __future__ import annotations

import datetime
from pathlib import Path

import openpyxl
import pytest

from ftlib.curate.documents import tables
from ftlib.data.read import Row
from ftlib.errors import DataError


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        list(tables.read_table(path.name, path))
    return str(raised.value)


def test_rows_of_sheets(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Mail"
    for cells in (["body", "label", None], ["Hello", 3, "x"], [None, None], [datetime.date(2026, 1, 2), None]):
        sheet.append(cells)
    book.create_sheet("More").append(["only a header"])
    book.save(tmp_path / "a.xlsx")
    assert list(tables.read_table("a.xlsx", tmp_path / "a.xlsx")) == [
        Row("a.xlsx:Mail:2", {"body": "Hello", "label": 3}),
        Row("a.xlsx:Mail:4", {"body": "2026-01-02T00:00:00", "label": ""}),
    ]


def test_other_tables_are_read_as_training_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body,label\nHello,3\n")
    assert list(tables.read_table("a.csv", tmp_path / "a.csv")) == [Row("a.csv:2", {"body": "Hello", "label": "3"})]


def test_a_line_without_end_is_refused_before_it_is_taken_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 2 << 20)
    long = tmp_path / "a.jsonl"
    long.write_text('{"a": 1}\n{"a": "' + "x" * (3 << 20) + '"}\n{"a": 2}\n')
    assert refusal(long) == "a.jsonl:2: the line has more than 2 MiB: it is no row."
    long.write_text(('{"a": "' + "x" * (1 << 20) + '"}\n') * 4)
    assert len(list(tables.read_table("a.jsonl", long))) == 4


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"nothing of the kind")
    assert refusal(tmp_path / "a.xlsx") == "a.xlsx: it is no XLSX file, or a broken one."
    (tmp_path / "b.csv").touch()
    assert refusal(tmp_path / "b.csv") == "b.csv is empty."
    (tmp_path / "c.csv").write_bytes(b"a\n\xff\n")
    assert refusal(tmp_path / "c.csv") == "c.csv: not UTF-8 text (invalid start byte at byte 2)."
