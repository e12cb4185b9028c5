"""The default rungs, replayed over recorded learning curves by Ray's own scheduler, as ftlib makes it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlib.config.sweep import Asha

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "asha_replay.py"


@pytest.fixture(scope="module")
def replay() -> Callable[..., dict[str, float]]:
    spec = importlib.util.spec_from_file_location("asha_replay", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., dict[str, float]] = module.replay
    return found


def test_the_default_rungs_lose_nothing_that_matters(replay: Callable[..., dict[str, float]]) -> None:
    default = Asha(type="asha")
    found = replay(100, default.rungs, default.reduction_factor)
    assert found["within 1 %"] >= 0.99
    assert found["kept"] >= 0.8
    assert found["times fewer steps"] >= 2.5


def test_a_third_rung_saves_four_times_the_steps(replay: Callable[..., dict[str, float]]) -> None:
    found = replay(100, 3, 3)
    assert found["times fewer steps"] >= 4
    assert found["within 1 %"] >= 0.9
