"""Packs under Ray Tune: the conductor is Tune's, and what it decides is what happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlib.leaderboard import leaderboard

from ..conftest import ftlib, only_run, write_experiment


def swept(tree: dict[str, Any], folder: Path, *overrides: str) -> tuple[Any, str]:
    tree = {**tree, "storage": str(folder / "runs")}
    status, output = ftlib("sweep", write_experiment(folder / "sweep.yaml", tree), *overrides)
    assert status == 0, output
    return only_run(folder / "runs"), output


@pytest.fixture
def sweep(tree: dict[str, Any], ray_local: None) -> dict[str, Any]:
    tree["train"].update(num_train_epochs=3, logging_steps=4, learning_rate=1e-2)
    tree["sweep"] = {
        "space": {
            "adapter.r": [2, 4],
            "train.learning_rate": [1e-3, 3e-2],
            "adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 4]},
        },
        "search": {"type": "grid"},
        "scheduler": {"type": "none"},
    }
    return tree


def test_a_packed_sweep_has_the_leaderboard_of_the_same_sweep_one_by_one(
    sweep: dict[str, Any], tmp_path: Path
) -> None:
    packed, output = swept(sweep, tmp_path / "packed")
    assert "pack width" in output
    alone, _ = swept(sweep, tmp_path / "alone", "sweep.pack=off")
    assert any(event["event"] == "packed" for event in packed.events())
    assert not any(event["event"] == "packed" for event in alone.events())
    ours, theirs = leaderboard(packed), leaderboard(alone)
    assert len(ours.rows) == len(theirs.rows) == 8
    by_point = {str(sorted(row.params.items())): row for row in theirs.rows}
    for row in ours.rows:
        other = by_point[str(sorted(row.params.items()))]
        assert row.state == other.state == "finished"
        assert row.value == pytest.approx(other.value, rel=1e-4)
    assert ours.best.params == theirs.best.params
