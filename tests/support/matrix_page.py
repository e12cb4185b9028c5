"""docs/matrix.md: two tables, each written by the tests that fill it, the other one left as it is."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "matrix.md"
SECOND = "## Thirty steps on a real model"
HEAD = [
    SECOND,
    "",
    "SmolLM2-135M-Instruct, and all-MiniLM-L6-v2 for classes; support tickets, batches of 2 rows (4 with a reward), 8",
    "held-out rows. `base` is the metric before the first step, without an adapter; `after` is the metric after step "
    "30.",
    "Written by `make test-all`, a line an entry, as it ends; an entry without a line was not run yet.",
    "",
    "| entry | metric | learning rate | base | after | about the base |",
    "|---|---|---|---|---|---|",
]


def first(lines: list[str]) -> None:
    """Writes the first table."""
    rows = "\n".join([SECOND, *_after(SECOND)]) if SECOND in _text() else ""
    PAGE.write_text("\n".join([*lines, rows]) + ("" if not rows else "\n"), encoding="utf-8")


def record(name: str, metric: str, rate: float, base: float, after: float, why: str, order: list[str]) -> None:
    """Writes one line of the second table, in its place."""
    rows = {line.split(" | ")[0][2:]: line for line in _after(SECOND) if line.startswith("| ")}
    rows[name] = f"| {name} | {metric} | {rate:g} | {base:.3f} | {after:.3f} | {why} |"
    lines = [*HEAD, *(rows[entry] for entry in order if entry in rows)]
    before = _text().split(SECOND)[0].rstrip()
    PAGE.write_text("\n".join([before, "", *lines, ""]), encoding="utf-8")


def _text() -> str:
    return PAGE.read_text(encoding="utf-8")


def _after(heading: str) -> list[str]:
    return _text().partition(heading)[2].rstrip().splitlines()[1:]
