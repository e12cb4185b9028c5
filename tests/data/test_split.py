"""Which rows are held out: by label, and with what asks the same on one side."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ftlib.data.split import held_out_rows


def chosen(asked, labels=None, share: float = 0.2, seed: int = 1, said=None) -> list[int]:
    return held_out_rows(asked, said or asked, labels, share, seed)


def test_rows_without_repeats_are_a_plain_draw() -> None:
    assert chosen(range(30)) == sorted(random.Random(1).sample(range(30), 6))
    assert chosen(range(30), seed=2) != chosen(range(30))
    assert [len(chosen(range(30), share=share)) for share in (0.01, 0.5, 0.99)] == [1, 15, 29]


@pytest.mark.parametrize("seed", range(5))
def test_what_asks_the_same_stays_together(seed) -> None:
    asked = [number // 3 for number in range(60)]
    held_out = chosen(asked, seed=seed)
    assert 6 <= len(held_out) <= 12
    assert {asked[row] for row in held_out}.isdisjoint(asked[row] for row in set(range(60)) - set(held_out))


def test_too_few_questions_are_parted_by_rows_and_one_row_repeated_all_the_same() -> None:
    held_out = chosen(["Summarize."] * 40, said=[number // 2 for number in range(40)])
    assert len(held_out) == 8
    assert {row // 2 for row in held_out} == {row // 2 for row in held_out if row % 2}
    assert len(chosen(["same"] * 5)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_every_label_gives_its_share(seed) -> None:
    labels = ["a"] * 80 + ["b"] * 15 + ["c"] * 5
    held_out = Counter(labels[row] for row in chosen(range(100), labels, share=0.1, seed=seed))
    assert held_out == {"a": 8, "b": 1, "c": 1}


def test_a_label_of_one_row_is_trained_on() -> None:
    labels = ["a", "b", *"cd" * 10]
    held_out = {labels[row] for row in chosen(range(22), labels, share=0.5)}
    assert held_out == {"c", "d"}
    assert len(chosen(range(2), ["a", "b"])) == 1


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_parted(seed) -> None:
    """Not even where too few rows are held out, and the group that is small enough is held out whatever is drawn."""
    assert held_out_rows(range(10), range(10), None, 0.2, seed, [0] * 8 + [1] * 2) == [8, 9]
    assert held_out_rows(range(10), range(10), None, 0.2, seed, [0] * 10) == []
    assert held_out_rows([0, *range(8), 0], range(10), None, 0.2, seed, [0] * 8 + [1] * 2) == [8, 9]
