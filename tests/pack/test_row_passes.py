"""Rows of a pass begin alike, and a pass takes no more than there is room for."""

from __future__ import annotations

import pytest

from ftlib.methods.pack_losses import Tokens
from ftlib.pack.row_passes import passes, side_by_side

ANSWER = [7, 8]
CHATS = [[Tokens.answer([n % 2] * 40 + [n], ANSWER)] for n in range(20)]  # two system prompts, in turn
PAIRS = [[Tokens.answer(range(n, n + 30), [n, other]) for other in (1, 2)] for n in range(0, 300, 30)]


@pytest.mark.parametrize(("rows", "places"), [(CHATS, 0), (CHATS, 100), (PAIRS, 100), (PAIRS, 10**6)])
def test_each_row_is_in_one_pass(rows: list[list[Tokens]], places: int) -> None:
    assert sorted(row for some in passes(rows, 3, 10, places) for row in some) == list(range(len(rows)))


def test_rows_that_begin_alike_are_read_together() -> None:
    odd, even = passes(CHATS, 2, 10, 40 + 10 * 3)
    assert sorted(odd) == list(range(0, 20, 2))
    assert sorted(even) == list(range(1, 20, 2))


def test_the_answers_of_a_pair_share_their_prompt() -> None:
    assert [len(some) for some in passes(PAIRS, 1, 10, 2 * (30 + 4))] == [2] * 5


def test_a_pass_has_the_least_in_any_case_and_room_for_no_more_logits() -> None:
    assert [len(some) for some in passes(CHATS, 8, 10, 0)] == [8, 8, 4]
    assert [len(some) for some in passes(CHATS, 1, 2**23)] == [2] * 10  # 2 tokens of an answer, 2^25 numbers


@pytest.mark.parametrize(("rows", "places"), [(CHATS, 0), (CHATS, 200), (PAIRS, 600), (PAIRS[:3], 10**6)])
def test_threads_have_as_many_rows_each(rows: list[list[Tokens]], places: int) -> None:
    alone = passes(rows, 2, 10, places // 2)
    shared = side_by_side(rows, 2, 10, 2, places)
    assert sorted(row for some in shared for row in some) == list(range(len(rows)))
    assert len(shared) <= len(alone) + len(alone) % 2
    assert max(map(len, shared)) <= max(map(len, alone))
    assert side_by_side(rows, 2, 10, 1, places) == passes(rows, 2, 10, places)


def test_a_pass_and_a_half_become_two_of_a_like_size() -> None:
    assert [len(some) for some in passes(PAIRS[:9], 1, 10, 6 * 34)] == [6, 3]
    assert sorted(len(some) for some in side_by_side(PAIRS[:9], 1, 10, 2, 12 * 34)) == [4, 5]
