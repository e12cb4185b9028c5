"""W&B's dashboard as JSON, without a network."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ftlib
from tests.run.tracking.ended import VERDICT, ended


def panels(grid: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {panel["viewType"]: panel["config"] for panel in grid["panels"]}


def test_a_workspace_and_a_report_are_written_without_a_network(
    tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    run = ended(tmp_path, tree, {"wandb": {"project": "mine"}})
    out = tmp_path / "dashboard.json"
    status, output = ftlib("wandb", run.path, "--out", out)
    assert (status, output) == (0, f"the dashboard is in {out}\n")
    made = json.loads(out.read_text())

    workspace = made["workspace"]["spec"]["section"]
    sections = {section["name"]: panels(section) for section in workspace["panelBankConfig"]["sections"]}
    columns = [
        {"accessor": "config:r.value"},
        {"accessor": "config:learning_rate.value", "log": True},
        {"accessor": "summary:objective", "displayName": "eval_loss"},
    ]
    assert sections["Parameters"]["Parallel Coordinates Plot"]["columns"] == columns
    assert sections["Parameters"]["Parameter Importance"]["targetKey"] == "objective"
    assert sections["Trials"]["Run Comparer"] == {"diffOnly": "split"}
    curve = sections["Curves"]["Run History Line Plot"]
    assert curve["xAxis"] == "train/global_step"
    filters = {told["key"]["name"]: told["value"] for told in workspace["runSets"][0]["filters"]["filters"]}
    assert filters == {"group": "x-run", "jobType": "trial"}

    blocks = made["report"]["spec"]["blocks"]
    assert VERDICT in [child.get("text") for block in blocks for child in block["children"]]
    (first, *_) = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    assert panels(first["panelBankSectionConfig"])["Parallel Coordinates Plot"]["columns"] == columns
    assert made["report"]["project"]["name"] == "mine"


def test_what_cannot_be_made_is_refused(tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = ended(tmp_path / "a", tree, {"wandb": {}})
    status, output = ftlib("wandb", run.path)
    assert status == 2
    assert "W&B is offline here: set WANDB_API_KEY, or write the dashboard with --out FILE." in output
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, output = ftlib("wandb", run.path, "--out", tmp_path / "x.json")
    assert (status, "pip install 'ftlib[dashboards]'" in output) == (2, True)
    without = ended(tmp_path / "b", tree, {"wandb": None})
    status, output = ftlib("wandb", without.path, "--out", tmp_path / "x.json")
    assert (status, "its track.wandb is null" in output) == (2, True)


def test_a_server_that_cannot_be_reached_is_one_sentence(
    tmp_path: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    run = ended(tmp_path, tree, {"wandb": {"entity": "me", "mode": "online"}})
    status, output = ftlib("wandb", run.path)
    assert status == 1
    assert "W&B at http://127.0.0.1:1" in output
