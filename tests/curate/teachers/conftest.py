"""Teachers that cost nothing: a server on this machine, and a home of the test's own for what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ftlib.evaluation import chat_url
from tests.curate.teachers.server import Server, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setattr(chat_url, "PAUSE", 0.001)
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    with serving() as running:
        yield running
