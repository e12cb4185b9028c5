"""The first signal asks, the next one ends."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ftlib.cluster import interrupt
from ftlib.cluster.interrupt import Interrupt, interruptible, sigterm_is_ctrl_c
from tests.conftest import ROOT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_the_next_ends(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "SAME_SECONDS", 0.05)
    before, heard = signal.getsignal(number), Interrupt()
    with interruptible(heard.heard):
        os.kill(os.getpid(), number)
        assert heard.since is not None
        os.kill(os.getpid(), number)  # the same one, that a wrapper has handed on too
        time.sleep(0.06)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_trials_have_their_time_and_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Interrupt()
    assert not found.asks_again()
    assert not found.over
    found.heard()
    assert found.asks_again()
    assert not found.asks_again()
    assert not found.over
    monkeypatch.setattr(interrupt, "GRACE_SECONDS", 0.0)
    assert found.over


def test_the_time_is_that_of_the_documentation() -> None:
    page = " ".join((ROOT / "docs" / "failures.md").read_text().split())
    assert f"trials have {interrupt.GRACE_SECONDS:g} s to save" in page
    assert interrupt.SAME_SECONDS == 1  # "more than a second later"


def test_sigterm_is_a_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        sigterm_is_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_tick_of_a_large_pack_is_waited_for() -> None:
    """Sixteen trials of a real model and their evaluation take more than a minute on two cores."""
    found = Interrupt()
    found.since = time.monotonic() - 120
    assert not found.over
