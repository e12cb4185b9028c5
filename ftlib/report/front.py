"""The Pareto front of a sweep of several objectives: the first metric against each other one."""

from __future__ import annotations

from typing import Any

from ftlib.report.shapes import ACCENT, MUTED, Chart, Line, Section, Table
from ftlib.report.words import NONE, count, inert, number
from ftlib.run.leaderboard import Leaderboard, Row


def front(board: Leaderboard) -> Section | None:
    """The section; None where trials are compared by one metric, or fewer than two have numbers."""
    ranked = [row for row in board.rows if row.rank is not None]
    if not board.objectives or len(ranked) < 2:
        return None
    on_it = [row for row in ranked if row.front]
    charts = [_chart(board, ranked, place, name) for place, (name, _) in enumerate(board.objectives[1:])]
    lead = f"{count(len(on_it), 'trial')} of {len(ranked):,}: no other is better in one metric and worse in none."
    return Section("front", "Pareto front", lead, charts, tables=[_table(board, on_it)])


def _chart(board: Leaderboard, ranked: list[Row], place: int, name: str) -> Chart:
    shown = [row for row in ranked if row.further.get(name) is not None]
    traces = [
        _dots([row for row in shown if row.front is on], name, colour)
        for on, colour in ((False, MUTED), (True, ACCENT))
    ]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": inert(name)}},
        "yaxis": {"title": {"text": inert(board.metric)}},
    }
    fact = f"{board.metric} against {name}."
    return Chart(f"front-{place}", fact, traces, layout, 360)


def _dots(rows: list[Row], name: str, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [row.further[name] for row in rows],
        "y": [row.value for row in rows],
        "text": [inert(row.trial) for row in rows],
        "marker": {"color": colour, "size": 8 if colour == MUTED else 12},
        "hovertemplate": "trial %{text}: %{y:.4g} at %{x:.4g}<extra></extra>",
        "showlegend": False,
    }


def _table(board: Leaderboard, rows: list[Row]) -> Table:
    names = [name for name, _ in board.objectives]
    lines = [
        Line([row.trial, *(NONE if value is None else number(value) for value in (row.value, *_others(row, names)))])
        for row in rows
    ]
    return Table("The trials on the front", ["Trial", *names], lines, frozenset(range(1, len(names) + 1)))


def _others(row: Row, names: list[str]) -> list[float | None]:
    return [row.further.get(name) for name in names[1:]]
