"""Which trial of a leaderboard is taken where that is not the best: the cheapest of those that are near it."""

from __future__ import annotations

import re

from ftlib.config.objectives import MEASURES
from ftlib.errors import InputError
from ftlib.run.leaderboard import Leaderboard, Row

WITHIN = re.compile(r"^\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*$")


def cheapest(board: Leaderboard, within: str) -> Row:
    """The trial that costs least of those whose first metric is within a distance of the best's.

    `within` is a share of the best (`1%`) or a distance in the metric's own unit (`0.01`). What a trial costs is the
    first measure among the sweep's objectives, and else how many parameters it trains. Only trials with a number on the
    same rows as the best are looked at, that have ended and keep every bound. Raises InputError where there is no best
    trial, and for a text that is no distance.
    """
    best, found = board.best, WITHIN.match(within)
    if found is None or (found[2] and float(found[1]) > 100):
        raise InputError(f"--within is '{within}', but must be a share such as 1%, or a number such as 0.01.")
    if best is None or best.final is None:
        raise InputError("no trial has an evaluation yet: nothing can be chosen.")
    slack = float(found[1]) * (abs(best.final) / 100 if found[2] else 1.0)
    sign = 1 if board.mode == "min" else -1
    near = [
        row
        for row in board.rows
        if row.rank is not None
        and row.state in ("finished", "stopped")
        and row.broken <= 0
        and (row.all_rows is None) == (best.all_rows is None)
        and sign * ((row.final or 0.0) - best.final) <= slack + 1e-12
    ]
    return min(near or [best], key=lambda row: (_cost(row, board), row.rank or 0))


def _cost(row: Row, board: Leaderboard) -> float:
    named = next((name for name, _ in board.objectives if name in MEASURES), "trainable_parameters")
    cost = row.further.get(named, row.trainable_parameters)
    return float("inf") if cost is None else float(cost)


__all__ = ["cheapest"]
