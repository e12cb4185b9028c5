"""What the base says of rows is computed of those that are met, each once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ftlib.methods.pack_losses import Tokens
from ftlib.pack.references import References


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))


def tokens_of(rows: Sequence[int]) -> list[Tokens]:
    """Row 7's two sequences are [7] and [107]; all first ones come before all second ones."""
    none = np.zeros(0, dtype=np.int64)
    return [Tokens(np.array([row + offset]), none, none) for offset in (0, 100) for row in rows]


class Base:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def sums(self, tokens: Sequence[Tokens]) -> Tensor:
        ids = [int(one.ids[0]) for one in tokens]
        self.asked += [number for number in ids if number < 100]
        return torch.tensor([float(number) for number in ids])


def test_each_row_that_is_met_is_computed_once() -> None:
    base = Base()
    one = References({"base": "a"}, base.sums, 4)
    assert one.of("train", "pairs", tokens_of, [9, 3], soon=[3, 5, 9]).tolist() == [[9.0, 109.0], [3.0, 103.0]]
    assert sorted(base.asked) == [3, 5, 9]
    assert one.of("train", "pairs", tokens_of, [5], soon=[3, 5, 9]).tolist() == [[5.0, 105.0]]
    # a trial that meets others, too: the new ones alone
    assert one.of("train", "pairs", tokens_of, [2], soon=[2, 3]).tolist() == [[2.0, 102.0]]
    assert sorted(base.asked) == [2, 3, 5, 9]


def test_another_host_reads_what_is_there_and_another_base_does_not() -> None:
    base = Base()
    References({"base": "a"}, base.sums, 4).of("eval", "pairs", tokens_of, [0], soon=range(9))
    again = References({"base": "a"}, base.sums, 4).of("eval", "pairs", tokens_of, [8], soon=range(9))
    assert again.tolist() == [[8.0, 108.0]]
    assert sorted(base.asked) == list(range(9))
    References({"base": "b"}, base.sums, 4).of("eval", "pairs", tokens_of, [8], soon=())
    assert base.asked[9:] == [8]
