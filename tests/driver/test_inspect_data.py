"""A file is looked at before training: by a command, and in a few lines at a check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import DataSection
from ftlib.driver import inspect_data
from ftlib.driver.inspect_data import inspected, lines_of_check
from ftlib.errors import DataError, InputError
from tests.conftest import ftlib

ROWS = [{"prompt": f"What is {a} times {a + 3}, my friend?", "completion": f"It is {a * (a + 3)}."} for a in range(30)]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_command_tells_and_writes_a_page_and_json(tmp_path: Path, base: Path) -> None:
    file = written(tmp_path / "sums.jsonl", [*ROWS, ROWS[4]])
    status, output = ftlib("data", "report", file, "--eval", file, "--model", base, "--out", tmp_path / "out")
    assert status == 0, output
    assert "sums.jsonl: 31 rows, prompt_completion; half up to" in output
    assert "tokens, 95 % up to" in output
    assert "1 row repeats another but for case and space" in output
    assert "31 of 31 rows of sums.jsonl stand in the training data" in output
    assert (tmp_path / "out" / "sums-report.html").is_file()
    found = json.loads((tmp_path / "out" / "sums-report.json").read_text())
    assert (found["unit"], found["rows"]) == ("tokens", 31)
    assert found["window"] > 0
    status, output = ftlib("data", "report", file, "--json")
    assert json.loads(output)["findings"][0]["kind"] == "exact_duplicates"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nowhere.jsonl",), "no such file or folder: 'nowhere.jsonl'"),
        (("FILE", "--regions", "DE,Germany"), "'Germany' is no region"),
        (("FILE", "other/sums.csv"), "'other/sums.csv' would both be sums-report.html"),
        (("FILE", "--benchmark", "gone.jsonl"), "no such file or folder: 'gone.jsonl'"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    file = written(tmp_path / "sums.jsonl", ROWS)
    status, output = ftlib("data", "report", *(file if one == "FILE" else one for one in options))
    assert status == 2
    assert said in output


def test_evaluation_rows_of_another_format_are_refused(tmp_path: Path) -> None:
    file, other = written(tmp_path / "a.jsonl", ROWS), written(tmp_path / "b.jsonl", [{"text": "a"}, {"text": "b"}])
    with pytest.raises(DataError, match="text rows"):
        inspected(file, other)


def test_a_check_looks_at_the_first_rows_and_leaves_out_what_it_says_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_data, "OF_CHECK", 20)
    rows = [*ROWS[:5], ROWS[0], {"prompt": "Where is ana@example.com?", "completion": "Here."}, *ROWS[5:]]
    data = DataSection(train=written(tmp_path / "sums.jsonl", rows))
    first, *lines = lines_of_check(data)
    assert first.endswith("sums.jsonl: the first 20 rows were looked at")
    assert any("personal data: email, first sums.jsonl:7" in line for line in lines)
    assert not any("repeats another" in line for line in lines)
    assert len(lines) < 10


def test_a_check_without_the_libraries_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise InputError(f"this needs the package {name}: pip install 'ftlib[curate]'.")

    monkeypatch.setattr("ftlib.curate.near_duplicates.needed", missing)
    (line,) = lines_of_check(DataSection(train=written(tmp_path / "sums.jsonl", ROWS)))
    assert line == "not looked at: this needs the package rensa: pip install 'ftlib[curate]'."
