"""How wide: measured in strides, bounded by what is asked for and by memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ftlib.data import load_prepared
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.pack import width
from ftlib.pack.frozen_base import FrozenBase
from ftlib.run.context import Setting
from tests.training.test_trial import setting

RANK = 4


@pytest.fixture
def made(tree: dict[str, Any], tmp_path: Path) -> Setting:
    return setting(tree, tmp_path)


def base_of(made: Setting) -> FrozenBase:
    return FrozenBase(made.experiment(), load_prepared(Path(made.data)), 1, RANK)


def steps_take(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]) -> None:
    def step(base: FrozenBase, setting: Setting, wide: int, rank: int) -> tuple[float, list[Any]]:
        base.bank.resize(wide)
        return seconds(wide), []

    monkeypatch.setattr(width, "_step", step)
    monkeypatch.setattr(width, "timed", lambda action, device: 0.5)


def test_a_width_is_measured_on_the_real_batch(made: Setting) -> None:
    base = base_of(made)
    found = width.measure(base, made, 2, RANK)
    assert list(found.steps) == [1, 2]
    assert found.width in (1, 2)
    assert base.bank.slots == found.width
    assert found.speedup == pytest.approx(found.width * found.steps[1] / found.steps[found.width])
    assert 0 < found.share <= 1
    assert not base.bank.grads.any()


def test_every_measured_step_is_the_same_batch(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of natural lengths differ: what is compared must not."""
    sizes: list[int] = []
    base = base_of(made)
    forward = FrozenBase.computing

    def computing(self: FrozenBase, blocks: Any, route: Any) -> Any:
        sizes.append(sum(len(block.ids) for block in blocks))
        return forward(self, blocks, route)

    monkeypatch.setattr(FrozenBase, "computing", computing)
    width.measure(base, made, 1, RANK)
    assert len(sizes) > 4
    assert len(set(sizes)) == 1


def test_widening_ends_where_throughput_has_levelled_off(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    steps_take(monkeypatch, lambda wide: 1.0 if wide <= 4 else wide / 4)
    found = width.measure(base_of(made), made, 64, RANK)
    assert list(found.steps) == [1, 4, 16]
    assert found.width == 4
    assert found.speedup == 4
    assert found.share == 0.5


def test_packing_that_does_not_pay_is_said(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    steps_take(monkeypatch, lambda wide: wide**1.2)
    found = width.measure(base_of(made), made, 64, RANK)
    assert found.width == 1
    assert "packing would not pay here" in found.sentence


def test_out_of_memory_ends_the_widening(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(wide: int) -> float:
        if wide > 4:
            raise torch.OutOfMemoryError("out of memory")
        return 1.0

    steps_take(monkeypatch, seconds)
    base = base_of(made)
    found = width.measure(base, made, 64, RANK)
    assert found.width == 4
    assert base.bank.slots == 4


def test_what_was_measured_is_known_while_all_is_the_same(made: Setting, tmp_path: Path) -> None:
    """Through `pack.json`, as a run that is resumed reads it."""
    found = width.Width(4, 2.5, 0.8, {1: 0.1, 4: 0.16})
    of = width.depends_on(made, "data", 8, RANK, "cpu", 1)
    write_json(tmp_path / "pack.json", {**found.to_dict(), "of": of})
    told = read_json(tmp_path / "pack.json")
    assert width.Width.known(told, of) == found
    for other in ({"threads": 2}, {"processor": "another"}, {"rank": 8}, {"data": "other rows"}, {"torch": "3.0"}):
        assert width.Width.known(told, of | other) is None
    assert width.Width.known(None, of) is None
    assert width.Width.known(found.to_dict(), of) is None  # written before it was kept
