"""Who is asked to leave, and how often."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ftlib.run.directory import Run
from ftlib.sweeps.live import Live
from ftlib.sweeps.pack_hosts import OpenHost


def test_a_host_is_asked_once_for_all_of_its_trials(tmp_path: Path) -> None:
    asked: list[str] = []
    handle: Any = SimpleNamespace(evacuate=SimpleNamespace(remote=asked.append))
    run = Run.create(tmp_path, "x", "", {})
    trials = [run.new_trial() for _ in range(3)]
    host = OpenHost(handle, None, None)
    live = Live(run, homes={trials[0].id: host, trials[1].id: host})
    live.ask_all_to_leave([trial.id for trial in trials], "interrupted")
    assert asked == ["interrupted"]
    assert [trial.asked_to_leave for trial in trials] == [None, None, "interrupted"]
