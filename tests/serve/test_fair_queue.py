"""Turns and bounds."""

from __future__ import annotations

from collections import Counter

from serve.engine.queue import FairQueue


def taken(queue: FairQueue[str], active: Counter[str] | None = None) -> list[str]:
    found = []
    while (item := queue.take(active or Counter(), lambda _: True)) is not None:
        found.append(item)
    return found


def test_keys_take_turns_and_lines_keep_their_order() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        assert queue.put(item[0], item) is None
    assert taken(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_who_has_fewest_rows_is_first() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "b1", "c1"):
        queue.put(item[0], item)
    assert taken(queue, Counter(a=2, b=1)) == ["c1", "b1", "a1"]


def test_the_longest_line_gives_way() -> None:
    queue: FairQueue[str] = FairQueue(3)
    for item in ("a1", "a2", "a3"):
        queue.put("a", item)
    assert queue.put("a", "a4") == "a4"  # its own line is the longest
    assert queue.put("b", "b1") == "a3"
    assert queue.put("b", "b2") == "b2"  # two and two: whoever comes now waits outside
    assert queue.put("c", "c1") in ("a2", "b1")
    assert len(queue) == 3


def test_what_does_not_fit_holds_up_its_line_alone() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "b1"):
        queue.put(item[0], item)
    assert queue.take(Counter(), lambda item: item != "a1") == "b1"
    assert queue.take(Counter(), lambda item: item != "a1") is None
    assert queue.remove("a", "a1")
    assert not queue.remove("a", "a1")
    assert taken(queue) == ["a2"]
