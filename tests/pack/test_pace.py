"""The width of a pass is found while trials train, and changes nothing of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftlib.data import load_prepared
from ftlib.pack.engine import Pack
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.pace import SHARE, TICKS, Pace
from ftlib.run.directory import Run
from tests.pack.conftest import assert_same_bits, left_behind
from tests.training.test_trial import setting


def paced(width: int, most: int, rate: Callable[[int], float], to_go: int = 1000) -> tuple[Pace, list[int]]:
    """A pace after so many ticks, each as fast as `rate` says of its width, and the widths of the ticks."""
    told: list[int] = []
    pace = Pace(width, most, settled=lambda width, rates: told.append(width))
    seen = [width]
    for number in range(60):
        seen.append(pace.after(seen[-1], [500, 500], 1000 / rate(seen[-1]), to_go - number))
    assert told == [pace.width][: len(told)]
    return pace, seen


def test_wider_and_wider_while_that_is_faster() -> None:
    pace, seen = paced(4, 64, lambda wide: min(wide, 16))
    assert pace.width == 16
    assert seen[-1] == 16
    assert max(seen) == 32  # tried, and no faster
    assert set(pace.rates) == {4, 8, 16, 32}


def test_narrower_where_that_is_faster() -> None:
    pace, _ = paced(8, 8, lambda wide: 1 / wide)
    assert pace.width == 1


def test_a_width_stays_where_another_is_hardly_faster() -> None:
    pace, seen = paced(4, 8, lambda wide: 1 + wide / 1000)
    assert pace.width == 4
    assert seen.count(8) == seen.count(2) == TICKS


def test_one_slow_tick_decides_nothing() -> None:
    slow = iter([0.1] + [1.0] * 100)
    pace, _ = paced(4, 4, lambda wide: next(slow))
    assert pace.width == 4


def test_nothing_is_tried_where_it_could_not_pay() -> None:
    pace, seen = paced(4, 64, lambda wide: wide, to_go=int(TICKS / SHARE) - 1)
    assert set(seen) == {4}
    assert pace.rates == {}


def test_the_first_tick_tells_how_long_batches_are() -> None:
    """An estimate from the data counts what rows share once for each row."""
    assert Pace(1, 8, busy=2000).after(1, [500, 300], 1.0, 10) == 4  # 5 are enough, and two passes of 4 are alike
    assert Pace(8, 8, busy=2000).after(8, [4000], 1.0, 10) == 1


def test_trials_train_while_widths_are_tried_and_no_bit_changes(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(max_steps=110, eval_strategy="end")
    left = {}
    for folder, pace in (("paced", Pace(2, 4)), ("fixed", None)):
        (tmp_path / folder).mkdir()
        made = setting(tree, tmp_path / folder)
        pack = Pack(FrozenBase(made.experiment(), load_prepared(Path(made.data)), 4, 4), made, 2, pace)
        for number in range(4):
            pack.join(f"{number:03d}", {"train.learning_rate": 1e-3 * (number + 1)}, lambda row: None)
        while pack.members:
            pack.tick()
        left[folder] = [left_behind(Run(Path(made.run)).trial(f"{number:03d}")) for number in range(4)]
        if pace is not None:
            assert {2, 4} <= set(pace.rates)
    for ours, theirs in zip(*left.values(), strict=True):
        assert_same_bits(ours, theirs)
