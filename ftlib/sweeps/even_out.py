"""Trials move to a host that has nothing to do, from one of the same machine that trains several.

A scheduler stops trials where it will: one host may lose all of its trials while another keeps four, and half of the
machine would wait for the other half. A trial that moves saves where it stands and goes on from there, with the same
bits (docs/packs.md). Between machines nothing moves: an idle one can be given back.
"""

from __future__ import annotations

from collections.abc import Iterable

from ftlib.run.directory import Trial
from ftlib.sweeps.pack_hosts import OpenHost

NOTHING_TO_DO = "another process of its machine has nothing to do"
WORTH_SECONDS = 15.0  # of training that a trial has before it; to save, move and load takes one or two


def idle_and_crowded(hosts: Iterable[OpenHost]) -> tuple[OpenHost, OpenHost] | None:
    """Two hosts of one machine, one without trials and the one with the most, at least two; None where all is even."""
    there = list(hosts)
    for idle in (host for host in there if not host.tenants):
        beside = [host for host in there if host.node == idle.node and len(host.tenants) > 1]
        if beside:
            return idle, max(beside, key=lambda host: len(host.tenants))
    return None


def movers(trials: Iterable[Trial]) -> list[Trial]:
    """Of the trials of a crowded host half, rounded down: those that have the most before them. A trial without much
    left stays."""
    left = {trial: seconds_left(trial) for trial in trials}
    longest = sorted(left, key=lambda trial: -left[trial])[: len(left) // 2]
    return [trial for trial in longest if left[trial] >= WORTH_SECONDS]


def seconds_left(trial: Trial) -> float:
    """What the trial has before it at the pace that it had, in seconds; 0 where it has said nothing yet."""
    rows = [row for row in trial.metrics() if row.get("progress")]
    return rows[-1]["seconds"] * (1 / rows[-1]["progress"] - 1) if rows else 0.0
