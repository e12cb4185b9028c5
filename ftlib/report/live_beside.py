"""Two runs beside each other: what they came to, their curves on one scale, and the settings that differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ftlib.report.curves import POINTS, curves_of, scale, thinned
from ftlib.report.live_run import drawn
from ftlib.report.live_runs import Told, summary
from ftlib.report.shapes import ACCENT, WARN, Chart
from ftlib.report.words import NONE, inert
from ftlib.run.directory import Run
from ftlib.run.leaderboard import Leaderboard, leaderboard
from ftlib.run.plain_text import one_line

CURVES = 20  # of a run: its best ones
SETTINGS = 80  # that differ
LONGEST = 120  # characters of a setting
RESULTS = {"state": "State", "metric": "Metric", "best": "Best", "best_trial": "Best trial", "base": "Untuned base",
           "gain": "Against the base", "done": "Trials done"}  # fmt: skip
PLACES = ("storage", "name")  # settings that always differ


def beside(a: Run, b: Run) -> Told:
    """Two summaries, rows of what differs, and a chart where one metric compares both. Raises FtlibError."""
    boards = leaderboard(a), leaderboard(b)
    sides = [summary(run, board) for run, board in zip((a, b), boards, strict=True)]
    results = [[label, *(str(side[key]) or NONE for side in sides)] for key, label in RESULTS.items()]
    differing = _differing(a, b)
    chart = _chart((a, b), boards)
    return {
        "sides": sides,
        "results": results,
        "settings": differing[:SETTINGS],
        "further": max(0, len(differing) - SETTINGS),
        "notes": _notes(a, b, boards),
        "charts": [drawn(chart)] if chart else [],
    }


def _notes(a: Run, b: Run, boards: tuple[Leaderboard, Leaderboard]) -> list[str]:
    """Why their numbers may not be comparable."""
    notes = []
    if boards[0].metric != boards[1].metric:
        notes.append(
            f"They are compared by two metrics, {one_line(boards[0].metric)} and {one_line(boards[1].metric)}."
        )
    hashes = [run.resolved.get("data", {}).get("hash") for run in (a, b)]
    if hashes[0] != hashes[1]:
        notes.append("They have different data, so their numbers are not of the same rows.")
    return notes


def _differing(a: Run, b: Run) -> list[list[str]]:
    """(setting, of a, of b) for each dotted path with two values."""
    flat = [dict(_flat(run.resolved.get("experiment", {}))) for run in (a, b)]
    paths = [path for path in {**flat[0], **flat[1]} if path not in PLACES]
    rows = [[path, flat[0].get(path, NONE), flat[1].get(path, NONE)] for path in paths]
    return [[one_line(text)[:LONGEST] for text in row] for row in rows if row[1] != row[2]]


def _flat(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, str) else json.dumps(value)


def _chart(runs: tuple[Run, Run], boards: tuple[Leaderboard, Leaderboard]) -> Chart | None:
    metric = boards[0].metric
    if metric != boards[1].metric:
        return None
    found = [curves_of(run, board, metric) for run, board in zip(runs, boards, strict=True)]
    axes, values = {axis for axis, _ in found}, [one for _, curves in found for _, _, of in curves for one in of]
    if not values or len(axes) > 1:
        return None
    traces: list[dict[str, Any]] = []
    for run, board, (_, curves), colour in zip(runs, boards, found, (ACCENT, WARN), strict=True):
        best = board.best.trial if board.best else None
        bold_last = sorted(curves[:CURVES], key=lambda curve, best=best: curve[0] == best)  # type: ignore[misc]
        traces += [_trace(run, *curve, colour, curve[0] == best) for curve in bold_last]
    layout = {"xaxis": {"title": {"text": axes.pop()}, "rangemode": "tozero"}, "yaxis": scale(values),
              "showlegend": True}  # fmt: skip
    fact = f"The {metric} of both runs' trials, the best trial of each bold."
    return Chart("beside", fact, traces, layout, 380, title=metric)


def _trace(run: Run, trial: str, places: list[float], values: list[float], colour: str, bold: bool) -> dict[str, Any]:
    x, y = thinned(places, values, POINTS)
    label = f"{inert(run.name)}, trial {inert(trial)}"
    return {
        "type": "scatter",
        "mode": "lines" if len(x) > 1 else "markers",
        "x": x,
        "y": y,
        "name": label,
        "line": {"color": colour, "width": 3 if bold else 1},
        "opacity": 1 if bold else 0.35,
        "showlegend": bold,
        "hovertemplate": f"{label}: %{{y:.4g}} at %{{x:,}}<extra></extra>",
    }
