"""MLflow, read back from a real store in SQLite."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Mlflow, TrackSection
from ftlib.errors import ConfigError
from ftlib.files.json_files import append_row
from ftlib.run.directory import Run
from ftlib.run.tracking import check, following
from tests.run.tracking.ended import VERDICT, ended


def track(folder: Path) -> TrackSection:
    settings = Mlflow(uri=f"sqlite:///{folder}/mlflow.db", experiment="tests", registered_model_name="tickets")
    return TrackSection(wandb=None, mlflow=settings, tensorboard=False)


def test_a_sweep_is_a_parent_with_nested_runs_and_a_registered_winner(tmp_path: Path, tree: dict[str, Any]) -> None:
    from mlflow.tracking import MlflowClient

    run = ended(tmp_path / "runs", tree, {})
    for _ in range(2):  # a resume that finds nothing new
        with following(run, track(tmp_path), pytest.fail):
            pass
    append_row(run.trial("001").metrics_path, {"step": 9, "tokens": 90, "seconds": 9.0, "eval_loss": 2.7})
    with following(run, track(tmp_path), pytest.fail):
        pass

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("tests")
    assert experiment.artifact_location == (tmp_path / "mlruns").as_uri()
    found = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"x-run", "base", "000", "001", "002"}
    parent = found.pop("x-run")
    assert {one.data.tags["mlflow.parentRunId"] for one in found.values()} == {parent.info.run_id}
    assert {name: one.info.status for name, one in found.items()} == {
        "base": "FINISHED", "000": "FINISHED", "001": "FINISHED", "002": "FAILED",
    }  # fmt: skip
    assert (parent.info.status, parent.data.tags["mlflow.note.content"]) == ("FINISHED", VERDICT)
    assert parent.data.metrics["tickets/exact_match/winner"] == 0.8
    winner = found["000"]
    assert winner.data.params == {"r": "2", "learning_rate": "0.001"}
    assert winner.data.metrics["objective"] == 2.0
    assert found["001"].data.metrics["objective"] == 2.7
    assert "objective" not in found["002"].data.metrics
    losses = client.get_metric_history(winner.info.run_id, "eval/loss")
    assert [(point.step, point.value) for point in losses] == [(0, 3.0), (1, 2.0), (2, 2.5)]
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"experiment.json", "leaderboard.csv", "evaluation.json", "report.html"}
    (version,) = client.search_model_versions("name = 'tickets'")
    assert (version.run_id, version.description) == (winner.info.run_id, VERDICT)
    weights = Path(version.source.removeprefix("file://")) / "adapter_model.safetensors"
    assert weights.read_text() == "weights"
    kept = json.loads((run.path / "tracking.json").read_text())["mlflow"]
    assert {name: told["id"] for name, told in kept.items()} == {
        "sweep": parent.info.run_id, **{name: one.info.run_id for name, one in found.items()},
    }  # fmt: skip


def test_a_store_that_mlflow_does_not_know_is_one_warning(tmp_path: Path, tree: dict[str, Any]) -> None:
    run: Run = ended(tmp_path / "runs", tree, {})
    warnings: list[str] = []
    nowhere = TrackSection(wandb=None, mlflow=Mlflow(uri="nowhere://x"))
    with following(run, nowhere, warnings.append):
        pass
    assert len(warnings) == 1
    assert warnings[0].startswith("mlflow failed and is off for the rest of this run: ")
    assert list((run.path / "tensorboard" / "000").iterdir())  # the other one went on


def test_what_cannot_work_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ConfigError, match="set it, or MLFLOW_TRACKING_URI"):
        check(TrackSection(mlflow=Mlflow()))
    with pytest.raises(ConfigError, match=r"track\.mlflow\.uri holds a password"):
        check(TrackSection(mlflow=Mlflow(uri="postgresql://me:secret@host/db")))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/db")
    check(TrackSection(mlflow=Mlflow()))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ftlib\[mlflow\]'"):
        check(TrackSection(mlflow=Mlflow()))
