"""Recipes small enough to be done in a tenth of a second; blocks so small that there are many."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftlib.config.recipe import Recipe
from ftlib.curate.rows import FROM, ID, Row
from ftlib.curate.runner import Build, build
from ftlib.curate.sources import all_parts
from ftlib.curate.step import Context
from ftlib.curate.workers import Here

CONTEXT = Context(seed=0, key="step")


def as_rows(*fields: dict[str, Any]) -> list[Row]:
    """Rows with ids and places."""
    return [{ID: f"{number:016x}", FROM: f"a.jsonl:{number + 1}", **one} for number, one in enumerate(fields)]


def write_lines(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 2 KiB and blocks of 20 rows."""
    monkeypatch.setattr("ftlib.curate.sources.PIECE", 2048)
    monkeypatch.setattr("ftlib.curate.blocks.BLOCK_ROWS", 20)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Build]:
    """Does a recipe: made(source, step, step, ...)."""

    def make(source: Path | dict[str, Any], *steps: Any, **more: Any) -> Build:
        tree = {"name": "t", "from": [source if isinstance(source, dict) else str(source)], "steps": list(steps)}
        recipe = Recipe.parse({"storage": str(tmp_path / "store"), **tree, **more})
        return build(recipe, all_parts(recipe), Here())

    return make
