"""Which trials move to a host without any, and when none does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftlib.run.directory import Run, Trial
from ftlib.sweeps.even_out import WORTH_SECONDS, idle_and_crowded, movers, seconds_left
from ftlib.sweeps.pack_hosts import Hosts, OpenHost

NODE, OTHER = "a", "b"


def host(tenants: int, node: str = NODE) -> OpenHost:
    handle: Any = None
    return OpenHost(handle, None, None, 4, node, tenants={f"resident-{number}" for number in range(tenants)})


def trial(run: Run, *rows: tuple[float, float]) -> Trial:
    found = run.new_trial()
    told = [{"step": 1, "seconds": seconds, "progress": progress} for seconds, progress in rows]
    found.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in told))
    return found


@pytest.mark.parametrize(
    ("hosts", "apart"),
    [
        ([host(0), host(2), host(3)], (0, 2)),
        ([host(0), host(1)], None),
        ([host(1), host(4)], None),
        ([host(0, OTHER), host(4)], None),
        ([], None),
    ],
)
def test_an_idle_host_gets_trials_of_a_crowded_neighbour(hosts: list[OpenHost], apart: tuple[int, int] | None) -> None:
    found = idle_and_crowded(hosts)
    assert found == (None if apart is None else tuple(hosts[number] for number in apart))


def test_half_of_the_trials_move_those_with_the_most_before_them(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "x", "", {})
    long, longest, short, silent = (
        trial(run, (10.0, 0.1), (50.0, 0.5)),
        trial(run, (40.0, 0.25)),
        trial(run, (90.0, 0.9)),
        trial(run),
    )
    assert [seconds_left(one) for one in (long, longest, silent)] == [50.0, 120.0, 0.0]
    assert movers([short, long, longest, silent]) == [longest, long]
    assert movers([short, long]) == [long]
    assert movers([short, silent]) == []
    assert seconds_left(short) < WORTH_SECONDS


def test_an_idle_host_stays_open_for_its_neighbours_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    opening: Any = None
    hosts = Hosts(lambda: None, opening, 2, lambda *event, **details: None)
    ended: list[OpenHost] = []
    monkeypatch.setattr(hosts, "_end", lambda host, why: ended.append(host))
    idle, crowded = host(0), host(3)
    hosts.open_hosts = [idle, crowded]
    hosts.fit(3)
    assert ended == []
    crowded.tenants = {"resident-0"}
    hosts.fit(2, moving=True)
    assert ended == []
    hosts.fit(1)
    assert ended == [idle]
