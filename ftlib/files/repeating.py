"""A thread that looks every few seconds while something lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(look: Callable[[], object], every: float, name: str, patience: float) -> Iterator[threading.Thread]:
    """Calls `look` in a thread, every so many seconds, until the block ends; then waits up to `patience` seconds for
    the call that is under way. Gives the thread, which lives on where that was not enough. `look` must not raise."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(every):
            look()

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        ended.set()
        thread.join(timeout=patience)
