"""A thread that looks every few seconds while something lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.01  # of a core, that one such thread may take: what it looks at grows, and trials need the cores
LONGEST_SECONDS = 10.0  # between two looks for this reason


@contextmanager
def repeating(look: Callable[[], object], every: float, name: str, patience: float) -> Iterator[threading.Thread]:
    """Calls `look` in a thread, every so many seconds, until the block ends; then waits up to `patience` seconds for
    the call that is under way. Gives the thread, which lives on where that was not enough. `look` must not raise.

    A look that computes for long comes less often.
    """
    ended = threading.Event()

    def loop() -> None:
        pause = every
        while not ended.wait(pause):
            before = time.thread_time()
            look()
            pause = max(every, min(LONGEST_SECONDS, (time.thread_time() - before) / SHARE))

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        ended.set()
        thread.join(timeout=patience)
