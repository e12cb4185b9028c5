"""Ctrl-C and SIGTERM. The first one asks trials to save where they stand, and the next one ends the process at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 600.0  # that trials have to save: a tick of a large pack, with an evaluation, takes minutes
SAME_SECONDS = 1.0  # a terminal and a wrapper may both hand on one Ctrl-C


class Interrupt:
    """Whether a run is interrupted, and since when."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.asked = 0.0  # when trials were last asked

    def heard(self) -> None:
        """Safe in a signal handler: it only notes the time."""
        self.since = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the time that trials had for saving is over."""
        return self.since is not None and time.monotonic() - self.since > GRACE_SECONDS

    def asks_again(self) -> bool:
        """True once a second while the run is interrupted. A trial that has just started has not been asked yet."""
        now = time.monotonic()
        if self.since is None or now - self.asked < 1.0:
            return False
        self.asked = now
        return True


@contextmanager
def interruptible(heard: Callable[[], None]) -> Iterator[None]:
    """Within, the first Ctrl-C or SIGTERM calls `heard`; each later one is a KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    first: list[float] = []

    def handler(number: int, frame: Any) -> None:
        now = time.monotonic()
        if not first:
            first.append(now)
            heard()
        elif now - first[0] > SAME_SECONDS:
            raise KeyboardInterrupt

    before = {signum: signal.signal(signum, handler) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, theirs in before.items():
            signal.signal(signum, theirs)


def sigterm_is_ctrl_c() -> None:
    """A SIGTERM raises KeyboardInterrupt. Ray's own handler ends the process at once, with a dump of its C++ stack."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
