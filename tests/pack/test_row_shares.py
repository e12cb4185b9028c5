"""Threads that share the rows of a trial: like many tokens each, and the numbers of one thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ftlib.pack.row_shares import RowShares
from ftlib.run.context import Setting
from ftlib.run.directory import Trial
from tests.pack.conftest import assert_same_bits, left_behind, losses, pack_of, train, trial
from tests.training.test_trial import setting


def test_shares_have_like_many_tokens_and_their_order() -> None:
    shares = RowShares(2)
    assert shares.of([7, 3, 9, 5], [10, 2, 3, 9]) == [[7, 3], [9, 5]]
    assert shares.of([7, 3, 9], [1, 1, 1]) == [[7, 3, 9]]
    assert RowShares(4).of([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]) == [[1, 6], [2, 5], [3, 4]]
    assert RowShares(1).of([1, 2, 3, 4], [1, 1, 1, 1]) == [[1, 2, 3, 4]]


def test_all_shares_have_ended_before_an_error_is_raised() -> None:
    shares, done = RowShares(2), torch.zeros(1)

    def fails() -> None:
        raise RuntimeError("can't allocate memory")

    def adds() -> None:
        torch.ones(512, 512) @ torch.ones(512, 512)
        done.add_(1)

    with pytest.raises(RuntimeError, match="memory"):
        shares.together([fails, adds])
    assert done == 1
    assert shares.together([partial(torch.get_num_threads)] * 2) == [1, 1]


def trained(made: Setting, name: str, threads: int) -> tuple[Trial, set[int]]:
    """The trial, and into how many shares its batches went."""
    pack, counts = pack_of(made, slots=1), set()
    pack.shares = shares = RowShares(threads)
    divide = shares.of

    def counted(rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        found = divide(rows, lengths)
        counts.add(len(found))
        return found

    shares.of = counted  # type: ignore[method-assign]
    assert train(pack, {name: {}}) == {}
    return trial(made, name), counts


def test_two_threads_train_what_one_trains(tree: dict[str, Any], tmp_path: Path) -> None:
    """Steps of 8 and 8 and, at the end of an epoch, fewer rows, two batches a step."""
    tree["train"].update(per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=6, logging_steps=1)
    made = setting(tree, tmp_path)
    (one, alone), (two, divided) = trained(made, "000", 1), trained(made, "001", 2)
    assert (alone, divided) == (set(), {2})
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert losses(two, "grad_norm") == pytest.approx(losses(one, "grad_norm"), rel=1e-4)
    assert losses(two, "eval_loss") == pytest.approx(losses(one, "eval_loss"), rel=1e-5)
    ours, theirs = left_behind(two), left_behind(one)
    for name in set(ours) - {"rows"}:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


def test_the_same_threads_leave_the_same_bits(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(per_device_train_batch_size=8, max_steps=4, logging_steps=1)
    made = setting(tree, tmp_path)
    (one, _), (other, _) = trained(made, "000", 2), trained(made, "001", 2)
    assert_same_bits(left_behind(one), left_behind(other))


def test_dropout_has_one_mask_for_all_rows_of_a_batch(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["adapter"]["lora_dropout"] = 0.1
    tree["train"].update(max_steps=2)
    assert trained(setting(tree, tmp_path), "000", 2)[1] == set()
