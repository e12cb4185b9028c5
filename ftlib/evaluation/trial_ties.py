"""Which trials of a run may well be as good as its best: told by the parts of their best evaluations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ftlib.evaluation.score import Score
from ftlib.evaluation.statistics import ties
from ftlib.methods.table import PARTS_OF
from ftlib.run.directory import Run, Trial
from ftlib.run.leaderboard import leaderboard


def tied_trials(run: Run) -> list[str]:
    """The trials that cannot be told apart from the best on the held-out rows, the best first.

    A trial's evaluation has the metric of each of up to 16 parts of the rows (`ftlib/methods/table.py`), the same rows
    for all trials: they are the units of the comparison. Trials without parts are left out. Where the best has a number
    on all rows, it is compared with the others that have one.
    """
    metric, mode = run.objective
    best, found = leaderboard(run).best, dict[str, Score]()
    whole = best is not None and best.all_rows is not None
    for trial in run.trials():
        parts = (
            _checked((trial.on_all_rows or {}).get(f"{metric}{PARTS_OF}")) if whole else parts_of(trial, metric, mode)
        )
        if parts is not None and trial.state != "failed" and "replica_of" not in trial.lineage:
            sums = np.column_stack([parts, np.ones(len(parts))])
            found[trial.id] = Score(metric, "min" if mode == "min" else "max", parts, sums)
    lengths = [len(score.rows) for score in found.values()]
    same = {name: score for name, score in found.items() if len(score.rows) == max(lengths)}
    return ties(same) if same else []


def parts_of(trial: Trial, metric: str, mode: str) -> Any:
    """[parts] of the trial's best evaluation; None where it has none, or one that is no number."""
    rows = [row for row in trial.evaluations(metric) if row.get(f"{metric}{PARTS_OF}")]
    if not rows:
        return None
    best = (min if mode == "min" else max)(rows, key=lambda row: row[metric])
    return _checked(best[f"{metric}{PARTS_OF}"])


def _checked(told: Any) -> Any:
    if not told:
        return None
    parts = np.asarray(told, dtype=np.float64)
    return parts if len(parts) > 1 and np.isfinite(parts).all() else None
