"""Every file of a run directory has its name in one module, and it is said whether it travels."""

from __future__ import annotations

import re
from typing import Any

from ftlib.run import layout
from tests.conftest import ROOT

HERE = ("TUNE", "COMMANDS", "TRIALS", "INDEX")  # with rules of their own
NAMES = {name: value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
FILES = {name: value for name, value in NAMES.items() if "." in value and name != "INDEX"}


def test_a_name_stands_in_one_module() -> None:
    sources = [file for room in ("ftlib", "serve") for file in (ROOT / room).rglob("*.py")]
    for value in FILES.values():
        wrote = re.compile(rf"[\"']{re.escape(value)}[\"']")
        assert [file.name for file in sources if wrote.search(file.read_text())] == ["layout.py"], value


def test_it_is_said_of_each_whether_it_travels() -> None:
    told = [*layout.OF_RUN, *layout.OF_TRIAL_BY_DRIVER, *layout.OF_TRIAL, *layout.WHOLE, *layout.STAYS]
    assert len(told) == len(set(told))
    assert set(told) == set(NAMES.values()) - {NAMES[name] for name in (*HERE, "BASE", "FIRST")}


def test_each_is_explained() -> None:
    told = layout.__doc__ or ""
    assert [
        value
        for value in NAMES.values()
        if value not in (layout.LOCK, layout.FIRST, layout.PACK_ERROR) and value not in told
    ] == []


def test_a_sweep_leaves_no_file_without_a_name(swept: tuple[Any, str]) -> None:
    run = swept[0]
    known = set(NAMES.values())
    assert {entry.name for entry in run.path.iterdir()} <= known
    assert {entry.name for trial in run.trials() for entry in trial.path.iterdir()} <= known
