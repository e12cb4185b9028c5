"""Sweeps that know something, under Ray Tune: several objectives, first points, a study to look into, an early end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from ftlib.run.leaderboard import leaderboard
from tests.conftest import ftlib
from tests.sweeps.test_packed import swept

RATES = {"min": 1e-4, "max": 1e-1, "log": True}
TASKS = [
    {"name": "colours", "metrics": ["exact_match"], "max_new_tokens": 8, "limit": 12, "trial_rows": 4},
    {"name": "general", "metrics": ["token_f1"], "max_new_tokens": 8, "limit": 12, "trial_rows": 4},
]


def test_objectives_bounds_first_points_and_a_study_that_can_be_read(
    tree: dict[str, Any], data_file: Path, tmp_path: Path, ray_local: None
) -> None:
    tree["evaluation"] = {"tasks": [{**task, "data": str(data_file)} for task in TASKS], "against": ["base"]}
    tree["sweep"] = {
        "space": {"adapter.r": [2, 4], "train.learning_rate": RATES},
        "num_samples": 4,
        "metric": ["eval_loss", "colours/exact_match", "trainable_parameters"],
        "mode": ["min", "max", "min"],
        "constraints": {"general/token_f1": ">= 0.0"},
        "prior": "auto",
        "search": {"type": "optuna", "sampler": "nsgaii", "options": {"population_size": 4}, "storage": "run"},
        "baseline": False,
    }
    run, output = swept(tree, tmp_path)
    assert "first points: 3 from published tables (" in output
    assert "train.learning_rate: LoRA Without Regret" in output
    board = leaderboard(run)
    rates = {row.params["train.learning_rate"] for row in board.rows}
    assert any(abs(rate / 0.013 - 1) < 0.01 for rate in rates)  # 5e-4 * (2000 / 32) ** 0.781
    assert {row.further["trainable_parameters"] for row in board.rows} <= {
        row.trainable_parameters for row in board.rows
    }
    assert all(row.further["colours/exact_match"] is not None for row in board.rows)
    assert all(row.further["general/token_f1"] is not None and row.broken <= 0 for row in board.rows)
    assert board.rows[0].front
    assert "on the Pareto front of eval_loss, colours/exact_match and trainable_parameters" in output
    study = optuna.load_study(study_name=tree["name"], storage=f"sqlite:///{run.path}/study.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert sorted(trial.values[0] for trial in study.trials) == sorted(row.value or 0.0 for row in board.rows)
    assert "Pareto front" in (run.path / "report.html").read_text()
    status, said = ftlib("promote", run.path, "--as", "frugal", "--prefer", "cheapest", "--within", "100%", "--no-gate")
    assert status == 0, said
    assert "is the cheapest within 100% of the best" in said


def test_a_sweep_ends_by_itself_and_says_so(tree: dict[str, Any], tmp_path: Path, ray_local: None) -> None:
    tree["sweep"] = {
        "space": {"train.learning_rate": RATES},
        "num_samples": 12,
        "scheduler": {"type": "none"},
        "terminator": {"type": "gain", "min_trials": 4, "min_gain": 100.0},
        "pack": 2,
        "baseline": False,
    }
    run, output = swept(tree, tmp_path)
    made = len(run.trials())
    assert 4 <= made < 12
    (told,) = [event for event in run.events() if event["event"] == "terminated"]
    assert told["count"] == 12 - made
    assert told["why"] in output
    assert "no trial more is started after" in told["why"]
    status, _ = ftlib("resume", run.path)
    assert (status, len(run.trials())) == (0, made)  # nothing is left
