"""Packs without Ray: what a trial leaves behind, alone and among others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ftlib.data import load_prepared
from ftlib.pack.engine import Pack
from ftlib.pack.frozen_base import FrozenBase
from ftlib.run.context import Setting
from ftlib.run.directory import Run, Trial
from tests.training.test_trial import setting

Change = Callable[[Pack, int], None]  # what happens before a tick


@pytest.fixture
def made(tree: dict[str, Any], tmp_path: Path) -> Setting:
    """Trials of sixteen steps and two evaluations."""
    tree["train"].update(max_steps=16, logging_steps=1, learning_rate=1e-2, eval_strategy="steps", eval_steps=8)
    tree["adapter"] = {"type": "lora", "r": 4, "lora_alpha": 8}
    return setting(tree, tmp_path / "shared")


def pack_of(
    setting: Setting, slots: int = 8, rank: int = 8, width: int | None = None, threads: int = 1, shares: int = 1
) -> Pack:
    torch.set_num_threads(threads)
    base = FrozenBase(setting.experiment(), load_prepared(Path(setting.data)), slots, rank)
    return Pack(base, setting, width, threads=shares)


def train(pack: Pack, trials: dict[str, dict[str, Any]], before: Change = lambda pack, tick: None) -> dict[str, str]:
    """Trains all to their end; returns why some failed. `before(pack, tick)` may change who is in the pack."""
    failures: dict[str, str] = {}
    for name, params in trials.items():
        pack.join(name, params, lambda row: None, lambda reason, name=name: failures.update({name: reason}))
    for tick in range(10_000):
        before(pack, tick)
        if not pack.members:
            break
        pack.tick()
    return failures


def trial(setting: Setting, name: str) -> Trial:
    return Run(Path(setting.run)).trial(name)


def losses(trial: Trial, key: str = "loss") -> list[float]:
    return [row[key] for row in trial.metrics() if key in row]


def left_behind(trial: Trial) -> dict[str, Any]:
    """Every number that a trial's training led to, exactly: losses, weights, moments."""
    assert trial.checkpoint is not None
    kept = {
        f"{file}/{name}": tensor
        for file in ("adapter_model", "optimizer")
        for name, tensor in load_file(trial.checkpoint / f"{file}.safetensors").items()
    }
    numbers = [
        {key: value for key, value in row.items() if key in ("step", "loss", "eval_loss", "grad_norm", "learning_rate")}
        for row in trial.metrics()
    ]
    return {"rows": json.dumps(numbers), **kept}


def assert_same_bits(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    assert one["rows"] == other["rows"]
    for name, tensor in one.items():
        if name != "rows":
            assert torch.equal(tensor, other[name]), name
