"""Which trials of a run are within chance of the best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ftlib.driver.seeds import of_seeds
from ftlib.evaluation.trial_ties import tied_trials
from ftlib.files.json_files import append_row
from ftlib.run.directory import Run
from ftlib.run.leaderboard import leaderboard
from ftlib.run.leaderboard_text import to_table


def run_of(path: Path, trials: dict[str, float]) -> Run:
    """Trials whose parts are noise that all share, plus noise of their own, around a mean."""
    random = np.random.default_rng(0)
    shared = random.normal(0, 0.2, 16)
    run = Run.create(path, "run", "", {"objective": ["eval_loss", "min"], "seed": 42, "data": {"eval_rows": 160}})
    for name, mean in trials.items():
        trial = run.trial(name)
        trial.path.mkdir()
        parts = mean + shared + random.normal(0, 0.01, 16)
        row = {"step": 4, "tokens": 9, "seconds": 1.0, "progress": 1.0, "eval_loss": float(parts.mean())}
        append_row(trial.metrics_path, {**row, "eval_loss_parts": parts.tolist()})
        trial.set_state("finished")
    return run


def test_ties_and_a_lead(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"000": 1.0, "001": 1.001, "002": 1.2})
    assert set(tied_trials(run)) == {"000", "001"}
    (run.path / "evaluation.json").write_text(json.dumps({"ties": tied_trials(run)}))
    board = leaderboard(run)
    assert board.chance is not None
    assert board.chance.startswith("~ within chance of each other on 160 rows: 00")
    assert to_table(board).caption is not None
    assert tied_trials(run_of(tmp_path / "other", {"000": 1.0, "001": 1.2})) == ["000"]


def test_a_lucky_winner_is_said_to_be_one(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"000": 1.0, "001": 1.05, "002": 1.1, "003": 1.02})
    assert of_seeds(run, "000", {"tasks": {}}) is None
    for name, seed in (("002", 43), ("003", 44)):
        lineage = {"replica_of": "000", "changed": {"train.seed": seed}, "warm": False}
        (run.trial(name).path / "lineage.json").write_text(json.dumps(lineage))
    found = of_seeds(run, "000", {"tasks": {}})
    assert found is not None
    assert list(found["values"]) == ["42", "43", "44"]
    assert found["lucky"]  # the others' mean is worse than the second of the leaderboard
    assert [row.trial for row in leaderboard(run).rows if row.rank] == ["000", "001"]
    assert "002" not in tied_trials(run)


def test_where_the_best_is_known_on_all_rows_ties_are_told_by_these(tmp_path: Path) -> None:
    """On the part the first two are alike. On all rows they are not; the third was stopped, and has none."""
    run = run_of(tmp_path, {"000": 1.0, "001": 1.001, "002": 1.002})
    assert len(tied_trials(run)) == 3
    random = np.random.default_rng(1)
    for name, mean in {"000": 1.0, "001": 1.2}.items():
        parts = (mean + random.normal(0, 0.01, 16)).tolist()
        row = {"step": 4, "tokens": 9, "seconds": 1.0, "progress": 1.0}
        append_row(run.trial(name).metrics_path, {**row, "all_rows": {"eval_loss": mean, "eval_loss_parts": parts}})
    assert tied_trials(run) == ["000"]
