"""How many hosts a sweep gets, before its data is read and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.data import load_prepared
from ftlib.sweeps import pack_plan
from ftlib.sweeps.pack_plan import _guessed, _worth
from tests.pack.conftest import setting


@pytest.fixture
def swept(tree: dict[str, Any]) -> dict[str, Any]:
    space = {"train.learning_rate": [1e-3, 1e-2]}
    return {**tree, "sweep": {"space": space, "search": {"type": "grid"}, "scheduler": {"type": "none"}}}


def test_hosts_are_guessed_from_steps_and_files(swept: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_plan, "WORTH_SECONDS", 1e-9)
    swept["train"].pop("max_steps", None)
    assert _guessed(Experiment.parse(swept)) == 1  # how many rows an epoch has is not known yet
    swept["train"]["max_steps"] = 8
    assert _guessed(Experiment.parse(swept)) > 1
    monkeypatch.setattr(pack_plan, "WORTH_SECONDS", 1e9)
    assert _guessed(Experiment.parse(swept)) == 1


def test_work_makes_hosts_up_to_what_fits(
    swept: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None
) -> None:
    made = setting(swept, tmp_path)
    data = load_prepared(Path(made.data))
    assert _worth(made.experiment(), data) == 1
    monkeypatch.setattr(pack_plan, "WORTH_SECONDS", 1e-9)
    assert _worth(made.experiment(), data) == 2
