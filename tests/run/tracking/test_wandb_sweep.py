"""The sweep's own W&B run, read back from its offline file."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import TrackSection, Wandb
from ftlib.run.directory import Run
from ftlib.run.tracking import following, wandb_id
from tests.run.test_tracking import _config, items, wandb_records
from tests.run.tracking.ended import VERDICT, ended


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, list[Any]]]:
    """A sweep handed to W&B after its end: the run, and the records of each W&B run by its id."""
    tree = {"name": "x", "model": {"name_or_path": "m"}, "data": {"train": "d"}, "method": {"type": "sft"},
            "adapter": {"type": "lora", "r": 4}}  # fmt: skip
    run = ended(tmp_path_factory.mktemp("runs"), tree, {"wandb": {}})
    warnings: list[str] = []
    with following(run, TrackSection(wandb=Wandb(mode="offline"), tensorboard=False), warnings.append):
        pass
    assert warnings == []
    files = run.path.glob("wandb/offline-run-*/*.wandb")
    return run, {file.stem.removeprefix("run-"): wandb_records(file) for file in files}


def summary_of(records: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records:
        if record.HasField("summary"):
            found |= items(record.summary.update)
    return found


def test_the_best_of_a_trial_is_its_summary_not_its_last(told: tuple[Run, dict[str, list[Any]]]) -> None:
    run, records = told
    summary = summary_of(records[wandb_id(run, run.trial("000"))])
    assert summary["eval/loss"] == {"min": 2.0}
    assert (summary["objective"], summary["tickets/exact_match"]) == (2.0, 0.5)
    failed = summary_of(records[wandb_id(run, run.trial("002"))])
    assert "objective" not in failed  # what failed does not win in W&B either


def test_swept_parameters_are_plain_keys(told: tuple[Run, dict[str, list[Any]]]) -> None:
    run, records = told
    config = {item.key: json.loads(item.value_json) for record in records[wandb_id(run, run.trial("001"))]
              for item in _config(record)}  # fmt: skip
    assert (config["r"], config["learning_rate"], config["trial"]) == (4, 0.001, "001")
    assert config["experiment"]["adapter"]["r"] == 4


def test_the_sweep_has_its_tables_and_artifacts(told: tuple[Run, dict[str, list[Any]]]) -> None:
    run, records = told
    sweep = records[wandb_id(run, run.trial("sweep"))]
    header = next(record.run for record in sweep if record.HasField("run"))
    assert (header.job_type, header.notes) == ("sweep", VERDICT)
    summary = summary_of(sweep)
    assert (summary["verdict"], summary["winner"], summary["best"]) == (VERDICT, "000", 2.0)
    assert summary["tickets/exact_match/winner"] == 0.8
    artifacts = {record.artifact.type: record.artifact for record in sweep if record.HasField("artifact")}
    inside = {kind: {entry.path for entry in artifact.manifest.contents} for kind, artifact in artifacts.items()}
    assert inside["results"] == {"leaderboard.csv", "evaluation.json", "report.html"}
    assert inside["model"] == {"adapter_model.safetensors", "adapter_config.json"}
    about = json.loads(artifacts["model"].metadata)
    assert (about["trial"], about["value"], about["r"], about["base"]) == ("000", 2.0, 2, "tiny")
    tables = {file.stem.partition("_")[0]: json.loads(file.read_text())
              for file in run.path.glob("wandb/offline-run-*/files/media/table/*.table.json")}  # fmt: skip
    assert tables["leaderboard"]["columns"][:6] == ["rank", "trial", "state", "eval/loss", "gain_percent", "r"]
    assert [row[1] for row in tables["leaderboard"]["data"]] == ["base", "000", "001", "002"]
    answers = tables["answers"]["data"]
    assert len(answers) == 200
    assert max(row[2] for row in answers) > 290  # from the whole file
    assert {row[1] for row in answers if row[2] == 0} == {"base", "winner"}  # each question with all who answered


def test_answers_and_model_stay_where_that_is_said(tmp_path: Path, tree: dict[str, Any]) -> None:
    run = ended(tmp_path, tree, {})
    quiet = Wandb(mode="offline", log_answers=False, log_model=False)
    with following(run, TrackSection(wandb=quiet, tensorboard=False), pytest.fail):
        pass
    (file,) = run.path.glob(f"wandb/offline-run-*/run-{wandb_id(run, run.trial('sweep'))}.wandb")
    artifacts = [record.artifact for record in wandb_records(file) if record.HasField("artifact")]
    inside = {entry.path for artifact in artifacts for entry in artifact.manifest.contents}
    assert inside == {"leaderboard.csv", "evaluation.json", "leaderboard.table.json"}
