"""What the live page tells of one run: the report's verdict, curves and leaderboard as they stand, and what is new."""

from __future__ import annotations

import math
from typing import Any

from ftlib.report import first_screen
from ftlib.report.curves import learning_curves
from ftlib.report.live_runs import Told, is_conducted, summary
from ftlib.report.results import evaluation_of
from ftlib.report.shapes import Chart, Table
from ftlib.run.commands import EVENT
from ftlib.run.directory import Run
from ftlib.run.layout import BASE
from ftlib.run.leaderboard import Row, leaderboard
from ftlib.run.plain_text import one_line
from ftlib.run.storage_copy import source_of

LATEST = 12  # events
LONGEST = 300  # characters of what an event says
TRAINS = ("stop", "boost", "clone")
DEEDS = {  # what may be asked of a trial, by its state
    "pending": TRAINS,
    "running": TRAINS,
    "preempted": TRAINS,
    "stopped": ("resume", "boost", "clone"),
    "finished": ("boost", "clone"),
    "failed": ("clone",),
}


def details(run: Run) -> Told:
    """All that the page shows of a run. Raises FtlibError for a damaged file."""
    board, evaluation = leaderboard(run), evaluation_of(run)
    told, curves = summary(run, board), learning_curves(run, board)
    running = told["state"] == "running"
    rows = [*([board.base] if board.base else []), *board.rows]
    table = first_screen.leaderboard_table(board, evaluation)
    return {
        **told,
        "path": one_line(source_of(run) or str(run.path)),
        "about": (first_screen.subject if running else first_screen.about)(run, board),
        "verdict": first_screen.verdict(board, evaluation),
        "notes": first_screen.notes(evaluation),
        "columns": table.columns,
        "numeric": sorted(table.numeric),
        "lines": _lines(table, rows, is_conducted(run)),
        "tied": first_screen.tied(board, evaluation),
        "charts": [drawn(chart) for chart in (curves.charts if curves else [])],
        "news": [news(event) for event in reversed(run.events()[-LATEST:])],
        "promotion": first_screen.promotion(run, board, evaluation) if told["state"] == "finished" else None,
    }


def drawn(chart: Chart) -> Told:
    """A chart as the page draws it."""
    return {**chart.drawn, "title": chart.title, "fact": chart.fact, "height": chart.height}


def _lines(table: Table, rows: list[Row], steered: bool) -> list[Told]:
    return [
        {
            "trial": row.trial,
            "state": row.state,
            "cells": line.cells,
            "kind": line.kind,
            "tags": line.tags,
            "why": one_line(row.reason or "")[:LONGEST],
            "deeds": DEEDS.get(row.state, ()) if steered and row.trial != BASE else (),
        }
        for line, row in zip(table.lines, rows, strict=True)
    ]


def news(event: dict[str, Any]) -> Told:
    """An event of `events.jsonl` in words: `trial 003 failed: loss became nan`."""
    kind, trial = event["event"], event.get("trial")
    words = kind.replace("_", " ")
    if isinstance(trial, str) and kind.startswith("trial_"):
        words = f"trial {trial} {kind.removeprefix('trial_').replace('_', ' ')}"
    why = next((event[name] for name in ("sentence", "why", "reason") if isinstance(event.get(name), str)), None)
    text = str(why) if kind == EVENT and why else f"{words}: {why}" if why else words
    return {"time": event["time"] if math.isfinite(event["time"]) else None, "text": one_line(text)[:LONGEST]}
