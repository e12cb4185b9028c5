"""The Pareto front: the layers of points, and a leaderboard of several objectives and bounds."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ftlib.config.objectives import Constraint
from ftlib.errors import FtlibError, InputError
from ftlib.files.atomic import write_json
from ftlib.run.choice import cheapest
from ftlib.run.directory import Run
from ftlib.run.front import dominates, layers
from ftlib.run.layout import MANIFEST
from ftlib.run.leaderboard import leaderboard
from ftlib.run.leaderboard_text import to_csv

TRIALS = {  # (accuracy, kept knowledge, parameters)
    "000": (0.90, 0.60, 800),
    "001": (0.88, 0.60, 200),
    "002": (0.85, 0.60, 400),  # 001 is better in both
    "003": (0.99, 0.10, 100),  # forgot too much
    "004": (0.50, 0.60, 100),
}


def a_run(folder: Path, **sweep: Any) -> Run:
    resolved = {
        "experiment": {"name": "x", "sweep": {"constraints": {"general/f1": ">= 0.5"}, **sweep}},
        "objective": ["task/match", "max"],
        "objectives": [["task/match", "max"], ["trainable_parameters", "min"]],
    }
    run = Run.create(folder, "x", "", resolved)
    for name, (match, kept, parameters) in TRIALS.items():
        trial = run.trial(name)
        trial.path.mkdir()
        counts = {"epoch": 1.0, "tokens": 10, "seconds": 1.0, "progress": 1.0}
        rows = [{"step": 1, **counts, "task/match": match - 0.1, "general/f1": 0.9}]  # not the weights that are kept
        rows += [{"step": 2, **counts, "task/match": match, "general/f1": kept}]
        trial.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_json(trial.path / MANIFEST, {"kind": "adapter", "trainable_parameters": parameters})
        trial.set_state("finished")
    return run


def test_a_last_bit_is_no_lead() -> None:
    """SmolLM2 with ranks 16 and 4: the mean of the same sixteen scores, added in another order."""
    assert dominates((-0.4791666666666666, 407_040), (-0.4791666666666667, 1_628_160))
    assert layers([(-0.4791666666666667, 1_628_160), (-0.4791666666666666, 407_040)]) == [1, 0]


def test_layers_of_points() -> None:
    assert dominates((1, 2), (1, 3))
    assert not dominates((1, 2), (1, 2))
    assert not dominates((1, 3), (2, 2))
    assert layers([(1, 3), (2, 2), (3, 1), (2, 3), (3, 3)]) == [0, 0, 0, 1, 2]
    assert layers([]) == []


def test_a_bound_is_written_as_a_comparison() -> None:
    assert str(Constraint.of("a/b", ">=0.5")) == "a/b >= 0.5"
    assert Constraint.of("latency_ms", "<= 2e2").violation(250) == 50
    with pytest.raises(ValueError, match="must be a bound such as"):
        Constraint.of("a", "0.5")


def test_the_front_comes_first_and_what_breaks_a_bound_last(tmp_path: Path) -> None:
    board = leaderboard(a_run(tmp_path))
    assert [(row.trial, row.front, row.broken > 0) for row in board.rows] == [
        ("000", True, False),
        ("001", True, False),
        ("004", True, False),
        ("002", False, False),
        ("003", False, True),
    ]
    assert board.best is board.rows[0]
    text = str(board)
    assert "1 *" in text
    assert "5 !" in text
    assert "on the Pareto front of task/match and trainable_parameters" in text
    assert "general/f1 >= 0.5" in text
    told = {row["trial"]: row for row in csv.DictReader(io.StringIO(to_csv(board)))}
    assert (told["001"]["front"], told["001"]["keeps_bounds"], told["001"]["general/f1"]) == ("True", "True", "0.6")
    assert told["003"]["keeps_bounds"] == "False"


def test_the_cheapest_of_those_that_are_near_the_best(tmp_path: Path) -> None:
    board = leaderboard(a_run(tmp_path))
    assert cheapest(board, "1%").trial == "000"
    assert cheapest(board, "3 %").trial == "001"
    assert cheapest(board, "0.4").trial == "004"  # never 003, which breaks a bound
    for text in ("a bit", "-1%", "200%"):
        with pytest.raises(InputError, match="--within"):
            cheapest(board, text)


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    run = a_run(tmp_path, constraints={"a": "bad"})
    with pytest.raises(FtlibError, match="its constraints are none"):
        leaderboard(run)
