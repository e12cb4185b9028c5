"""Each mechanism of files is written once: whoever needs it calls it."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

SOURCES = {
    str(file.relative_to(ROOT)): file.read_text() for room in ("ftlib", "serve") for file in (ROOT / room).rglob("*.py")
}


@pytest.mark.parametrize(
    ("mechanism", "places"),
    [
        (r"\bos\.(rename|replace)\(", {"ftlib/files/atomic.py", "serve/front/logs.py"}),  # logs are rotated
        (r"\bflock\(", {"ftlib/files/locks.py"}),
        (r"\bos\.fsync\(", {"ftlib/files/atomic.py"}),
        (r"def patiently\b", {"ftlib/files/patience.py"}),
        (r"\.wait\((pause|every|EVERY|\w*SECONDS)\)", {"ftlib/files/repeating.py"}),
        (r"\bray\.init\(", {"ftlib/cluster/session.py"}),
        (r"\bray\._private\b|\bray\.[\w.]*\._private", {"ftlib/cluster/ray_private.py"}),
    ],
)
def test_it_stands_in_one_place(mechanism: str, places: set[str]) -> None:
    assert {file for file, text in SOURCES.items() if re.search(mechanism, text)} == places
