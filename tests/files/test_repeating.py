"""A thread that looks again and again leaves the cores to others."""

from __future__ import annotations

import threading
import time

from ftlib.files.repeating import SHARE, repeating


def test_a_look_that_computes_for_long_comes_less_often() -> None:
    """By its share of a core, the second look of this one would come after three seconds."""
    looked: list[float] = []
    first = threading.Event()

    def look() -> None:
        looked.append(time.thread_time())
        while time.thread_time() - looked[-1] < 3 * SHARE:
            pass
        first.set()

    with repeating(look, 0.001, "test", patience=1):
        assert first.wait(30)
        time.sleep(0.3)
    assert len(looked) == 1
