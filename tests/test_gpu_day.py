"""What a CUDA device will be asked, tried with tiny models on the CPU: the script is the test."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PARTS = ("machine", "update", "waits", "step-1b", "certificates-float32", "certificates-bfloat16", "trainer-lora")
MORE = ("trainer-dpo", "trainer-qlora", "attention", "dpo", "qlora", "serving", "low-rank")


def day(folder: Path, *parts: str, **options: str) -> tuple[int, list[dict[str, Any]]]:
    """Its exit status and its lines."""
    more = [word for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, str(BENCHMARKS / "gpu_day.py"), "--tiny", "--out", str(folder), "--parts", *parts, *more]
    status = subprocess.run(command, capture_output=True).returncode
    return status, [json.loads(line) for line in (folder / "gpu_day.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("part", ["update", *(pytest.param(part, marks=pytest.mark.matrix) for part in PARTS + MORE)])
def test_each_part_has_rows(part: str, tmp_path: Path) -> None:
    status, (line,) = day(tmp_path, part)
    assert "error" not in line, (line, (tmp_path / "gpu_day.log").read_text()[-3000:])
    assert status == 0
    assert line["rows"] or part == "waits"
    assert all(row.get("holds", True) for row in line["rows"])


def test_what_has_no_time_left_is_one_line_and_not_the_end(tmp_path: Path) -> None:
    status, lines = day(tmp_path, "machine", "update", minutes="0")
    assert status == 1
    assert [line["error"] for line in lines] == ["the time of all parts was up"] * 2


def test_a_wheel_keeps_the_libraries_that_are_named(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("gpu_kit", BENCHMARKS / "gpu_kit.py")
    assert spec is not None
    assert spec.loader is not None
    kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    wheel = tmp_path / "some-1.0-py3-none-any.whl"
    files = {"some/__init__.py": "", "some/libbitsandbytes_cuda130.so": "x", "some/libbitsandbytes_cuda118.so": "y"}
    with zipfile.ZipFile(wheel, "w") as made:
        for name, content in {**files, "some-1.0.dist-info/RECORD": "old"}.items():
            made.writestr(name, content)
    kit.keep_libraries(wheel)
    with zipfile.ZipFile(wheel) as made:
        assert "some/libbitsandbytes_cuda118.so" not in made.namelist()
        assert len(made.read("some-1.0.dist-info/RECORD").splitlines()) == len(made.namelist()) == 3
    assert [path.name for path in tmp_path.iterdir()] == [wheel.name]
    assert all("==" in pin for pin in kit.pinned())
