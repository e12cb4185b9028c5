"""What a page is made of: tables, charts, and lists of facts. The template draws them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# The page's own colours, which differ in light and dark: shared.js puts them in.
ACCENT, MUTED, TEXT, PAGE, BAD, WARN = "@accent", "@muted", "@text", "@page", "@bad", "@warn"


@dataclass(frozen=True)
class Line:
    """A row of a table; `kind` is a class of the page's style: `best`, `base`."""

    cells: list[str]
    kind: str = ""
    tags: tuple[str, ...] = ()  # short words beside the first cell


@dataclass(frozen=True)
class Table:
    """`numeric` are the places of the columns with numbers; `header` is the one that names its row."""

    caption: str
    columns: list[str]
    lines: list[Line]
    numeric: frozenset[int] = frozenset()
    header: int = 0


@dataclass(frozen=True)
class Chart:
    """A figure of Plotly's: `fact` is what it shows, in a sentence; `table` has its numbers."""

    name: str
    fact: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 340
    table: Table | None = None
    title: str = ""

    @property
    def drawn(self) -> dict[str, Any]:
        return {"name": self.name, "data": self.traces, "layout": {**self.layout, "height": self.height}}


@dataclass(frozen=True)
class Section:
    """A part of the page below the first screen. `lead` is a sentence below its heading."""

    name: str
    title: str
    lead: str = ""
    charts: list[Chart] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wide: bool = True  # False: its charts stand side by side where there is room
