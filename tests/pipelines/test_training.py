"""A pipeline that trains: rows, a winner in the registry, what it is worth, a promotion; and what a kill leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ftlib as library
from ftlib.report.pipeline_page import read_shown
from tests.conftest import ftlib, rows, write_jsonl

EXPERIMENT: dict[str, Any] = {
    "name": "tiny",
    "data": {"train": "data:colours", "max_length": 64},
    "method": {"type": "sft"},
    "adapter": {"type": "lora", "r": 4, "target_modules": "all-linear"},
    "train": {"max_steps": 2, "per_device_train_batch_size": 4, "eval_strategy": "end"},
    "scale": {"resources_per_worker": {"CPU": 1}},
    "track": {"wandb": None},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Path) -> Path:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FTLIB_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "d.jsonl", rows(24))
    recipe = {"name": "colours", "from": ["d.jsonl"], "steps": [{"split": {"test": 0.2, "eval": 0.2}}]}
    Path("r.yaml").write_text(json.dumps(recipe))
    Path("e.yaml").write_text(json.dumps({**EXPERIMENT, "model": {"name_or_path": str(base)}}))
    return tmp_path


@pytest.mark.usefixtures("ray_local")
def test_from_rows_to_a_promoted_winner_and_on_after_a_kill(folder: Path) -> None:
    task = {"data": "data:colours", "metrics": ["token_f1"], "max_new_tokens": 2}
    steps = {
        "release": {"promote": "sft", "as": "colours", "needs": "judge"},  # first in the file, last in order
        "judge": {"evaluate": ["sft", "base"], "task": task},
        "sft": {"train": "e.yaml", "set": {"train.max_steps": 3}, "as": "first"},
        "data": {"build": "r.yaml"},
    }
    Path("p.yaml").write_text(json.dumps({"name": "p", "steps": steps}))
    assert library.pipeline("p.yaml") == dict.fromkeys(("data", "sft", "judge", "release"), "done")
    (run,) = (folder / "runs").iterdir()
    kept = {file.stem: json.loads(file.read_text()) for file in (folder / "pipelines/p/steps").glob("*.json")}
    assert {name: told["made"] for name, told in kept.items()} == {
        "data": "data:colours@1", "sft": "registry:first@1", "judge": "", "release": "registry:colours@1"
    }  # fmt: skip
    assert kept["sft"]["inputs"]["step data"] == "data:colours@1"
    assert kept["sft"]["inputs"]["train.max_steps"] == "3"
    assert "sft token_f1" in kept["judge"]["figures"]
    assert "base token_f1" in kept["judge"]["figures"]
    page = (folder / "pipelines/p/pipeline.html").read_text()
    assert f'href="../../runs/{run.name}/report.html"' in page
    shown = read_shown(folder / "pipelines/p")  # as `ftlib ui` reads it
    assert shown is not None
    assert {step.name: (step.made, step.run) for step in shown.steps} == {
        "data": ("data:colours@1", ""), "sft": ("registry:first@1", str(run)), "judge": ("", ""),
        "release": ("registry:colours@1", str(run)),
    }  # fmt: skip
    assert library.pipeline("p.yaml") == dict.fromkeys(("data", "sft", "judge", "release"), "unchanged")

    for name in ("sft", "release"):  # as a kill leaves them that came after all was done, and before it was written
        told = {**kept[name], "state": "running", "made": ""}
        (folder / f"pipelines/p/steps/{name}.json").write_text(json.dumps(told))
    status, said = ftlib("pipeline", "p.yaml")
    assert (status, f"goes on with {run}" in said) == (0, True), said
    assert [one.name for one in (folder / "runs").iterdir()] == [run.name]
    assert "registry:first@1" in said  # and no second version of the same
    assert "registry:colours@1" in said
    assert "judge: nothing has changed" in said
