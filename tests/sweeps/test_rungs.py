"""The default rungs, replayed over recorded learning curves by the scheduler that ftlib makes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "asha_replay.py"
Replay = Callable[..., dict[str, float]]


@pytest.fixture(scope="module")
def replay() -> Replay:
    spec = importlib.util.spec_from_file_location("asha_replay", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    found: Replay = module.replay
    return found


@pytest.mark.parametrize("curves", ["docstrings", "alpaca"])
def test_in_a_pack_the_default_saves_three_times_the_steps_and_keeps_the_best(replay: Replay, curves: str) -> None:
    """Of 120 steps the first 20 are every trial's; a first rung at a twelfth saves four times the steps."""
    found = replay(curves, 200, {})
    assert found["times fewer steps"] >= 3.1
    assert found["kept"] >= 0.9
    assert found["within 1 %"] == 1
    assert replay(curves, 50, {"first_rung": 1 / 12})["times fewer steps"] >= 4


def test_it_is_calling_back_that_saves_them(replay: Replay) -> None:
    pack, alone = replay("docstrings", 100, {}), replay("docstrings", 100, {}, rule="alone")
    assert pack["times fewer steps"] > alone["times fewer steps"] + 0.3
    assert pack["kept"] >= alone["kept"]
    assert alone["times fewer steps"] >= 2.8
    assert alone["within 1 %"] >= 0.99


def test_a_smaller_pack_or_sweep_loses_nothing_that_matters(replay: Replay) -> None:
    for trials, width in ((8, 8), (16, 8), (32, 4)):
        found = replay("docstrings", 50, {}, width=width, trials=trials)
        assert found["within 1 %"] >= 0.95
        assert found["times fewer steps"] >= 2
