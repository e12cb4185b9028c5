"""What is freed goes back to the system."""

from __future__ import annotations

import sys

import psutil
import pytest

from serve.engine.memory import give_back


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc_trim")
def test_what_was_freed_between_pieces_in_use_goes_back() -> None:
    pieces = [bytes(4000) for _ in range(50_000)]  # 200 MB
    del pieces[: -len(pieces) // 100 : 1]  # the newest stay, so the heap's end cannot go down by itself
    before = psutil.Process().memory_info().rss
    give_back()
    assert psutil.Process().memory_info().rss < before - 100e6
    assert pieces
