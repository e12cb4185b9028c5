"""What moves, and how far: a rate that falls by layer, and layers that join one after another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ftlib.errors import TrialError
from ftlib.training.trainer_callback import TrialCallback

from .test_trial import cut_at_the_second_report, equal, losses, setting, train, weights

RATE = 1e-3


def place_of(name: str) -> str:
    found = re.search(r"embed|layers\.\d+|score", name)
    return found[0] if found else "norm"


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, float]:
    """The farthest way of a weight, by the place that it is in."""
    ways: dict[str, float] = {}
    for name, tensor in after.items():
        way = float((tensor - before.get(name, torch.zeros_like(tensor))).abs().max())
        ways[place_of(name)] = max(way, ways.get(place_of(name), 0.0))
    return ways


@pytest.fixture
def full(tree: dict[str, Any]) -> dict[str, Any]:
    tree["adapter"] = None
    tree["train"].update(learning_rate=RATE, max_steps=1, lr_scheduler_type="constant", max_grad_norm=0)
    return tree


def test_the_rate_falls_by_layer(full: dict[str, Any], base: Path, tmp_path: Path) -> None:
    """AdamW's first step is as long as the rate."""
    full["train"]["layer_lr_decay"] = 0.5
    done = setting(full, tmp_path)
    train(done)
    ways = moved(load_file(base / "model.safetensors"), weights(done))
    expected = {"norm": RATE, "layers.1": RATE, "layers.0": RATE / 2, "embed": RATE / 4}
    assert ways == pytest.approx(expected, rel=1e-2)


def test_of_an_adapter_too(full: dict[str, Any], tmp_path: Path) -> None:
    """B begins with zeros."""
    full["adapter"] = {"type": "lora", "r": 4}
    full["train"] |= {"layer_lr_decay": 0.5, "logging_steps": 1}
    full["scale"] = {"engine": "trainer"}
    done = setting(full, tmp_path)
    train(done)
    learned = {name: part for name, part in weights(done).items() if ".lora_B." in name}
    assert moved({}, learned) == pytest.approx({"layers.1": RATE, "layers.0": RATE / 2}, rel=1e-2)


def test_layers_join_from_the_top_down(full: dict[str, Any], base: Path, tmp_path: Path) -> None:
    full["train"] |= {"unfreeze_steps": 2, "max_steps": 5}
    before, seen = load_file(base / "model.safetensors"), []
    ends = TrialCallback.on_step_end

    def listen(journal: TrialCallback, *args: Any, **kwargs: Any) -> None:
        after = {name: part.detach().clone() for name, part in journal.trainer.model.named_parameters()}
        seen.append({place for place, way in moved(before, after).items() if way})
        ends(journal, *args, **kwargs)

    with mock.patch.object(TrialCallback, "on_step_end", listen):
        train(setting(full, tmp_path))
    first, second = {"norm", "layers.1"}, {"norm", "layers.1", "layers.0"}
    assert seen == [first, first, second, second, {*second, "embed"}]


def test_a_resumed_trial_goes_on_alike(full: dict[str, Any], tmp_path: Path) -> None:
    full["train"] |= {"unfreeze_steps": 2, "layer_lr_decay": 0.7, "max_steps": 6, "logging_steps": 1}
    full["train"] |= {"eval_strategy": "steps", "eval_steps": 1}
    whole, cut = setting(full, tmp_path / "whole"), setting(full, tmp_path / "cut")
    train(whole)
    cut_at_the_second_report(cut)
    train(cut)
    assert losses(cut) == losses(whole)
    assert equal(weights(cut), weights(whole))


def test_what_would_never_be_trained_is_refused(full: dict[str, Any], tmp_path: Path) -> None:
    full["train"] |= {"unfreeze_steps": 2, "max_steps": 4}
    with pytest.raises(TrialError, match="the lowest would join at step 4, and the trial has 4: lower it"):
        train(setting(full, tmp_path))
