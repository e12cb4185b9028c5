"""A range test of learning rates: which rates, what is suggested, and one real test with its page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.data import prepare
from ftlib.driver.lr_find import Found, check, find, narrowed, write_page
from ftlib.errors import ConfigError, InputError
from ftlib.models.base import load_tokenizer
from ftlib.pack.rate_test import Tried, rates_between, suggested


def test_rates_stand_at_equal_ratios() -> None:
    assert rates_between(1e-5, 1e-2) == [1e-5, 2.15e-5, 4.64e-5, 1e-4, 2.15e-4, 4.64e-4, 1e-3, 2.15e-3, 4.64e-3, 1e-2]
    assert rates_between(1e-3, 1.1e-3) == [1e-3, 1.1e-3]


def tried(*after: float | None) -> list[Tried]:
    return [Tried(10.0**power, [], 2.0, value) for power, value in zip(range(-5, 1), after, strict=False)]


def test_the_range_holds_what_learns_and_ends_above_the_best() -> None:
    found = suggested(tried(2.0, 1.98, 1.6, 1.0, 1.05, None))
    assert found is not None
    assert (found.best, found.low, found.high) == (1e-2, 1e-3, 0.3)  # a tenth of the best; three times 1e-1
    broken = suggested(tried(1.99, 1.5, 1.0, 1.9, None, None))
    assert broken is not None
    assert (broken.best, broken.low, broken.high) == (1e-3, 1e-4, 3e-3)
    assert suggested(tried(2.0, 2.1, None, None)) is None
    assert suggested([]) is None


def test_a_test_of_a_real_model(tree: dict[str, Any], tmp_path: Path) -> None:
    space = {"train.learning_rate": {"min": 1e-4, "max": 1e-1, "log": True}, "adapter.r": [2, 4]}
    experiment = Experiment.parse({**tree, "sweep": {"space": space, "lr_find": True}})
    data = prepare(experiment.data, "answers", load_tokenizer(experiment.model))
    found = find(experiment, data, 1e-4, 1e-1, steps=6)
    assert len(found.tried) == 10
    assert all(len(one.losses) == 6 for one in found.tried)
    assert len({one.losses[0] for one in found.tried}) == 1  # all begin alike, and see the same rows
    first, last = found.tried[0].after, found.tried[-3].after
    assert first is not None
    assert last is not None
    assert last < first < found.tried[0].before
    assert found.range is not None
    assert "train.learning_rate: {min: " in found.sentence
    file = tmp_path / "rates.html"
    write_page(found, experiment, file)
    assert "untuned base" in file.read_text()
    with pytest.raises(InputError, match="must be above 0 and below"):
        find(experiment, data, 1e-1, 1e-4)
    said: list[str] = []
    narrow = narrowed(experiment, data, said.append)
    assert narrow.sweep is not None
    rates = narrow.sweep.space["train.learning_rate"]
    assert 1e-4 <= rates.min < rates.max <= 1e-1  # type: ignore[union-attr]
    assert said[0].startswith("lr-find: train.learning_rate")


def test_what_cannot_be_tried_side_by_side_is_said(tree: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="lr-find tries rates side by side in a pack: only LoRA"):
        check(Experiment.parse({**tree, "adapter": None}))
    with pytest.raises(ConfigError, match="lr_find narrows a range"):
        Experiment.parse({**tree, "sweep": {"space": {"adapter.r": [2, 4]}, "lr_find": True}})
    assert "no rate has learned anything" in Found(tried(math.inf), None).sentence
