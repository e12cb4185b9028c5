"""What a run has taken: worker-seconds and their price, of the whole and of each trial, read from its `events.jsonl`.

A worker is what `scale.resources_per_worker` describes: the process of a solo trial, or the host of a pack. A host's
time is shared by the trials that are in it at that moment; what nobody was in (starting, waiting) is the sweep's alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from ftlib.config import Experiment, ScaleSection
from ftlib.run.directory import Run
from ftlib.run.layout import RESOLVED

LEFT = ("trial_finished", "trial_stopped", "trial_failed", "trial_preempted", "trial_recovered", "trial_moved")
GONE = ("host_lost", "host_closed")
SESSION = ("started", "resumed")


@dataclass(frozen=True)
class Spent:
    """Seconds of workers: of all, and of each trial's part in them; `hours` the sweep itself took."""

    worker_seconds: float = 0.0
    by_trial: dict[str, float] = field(default_factory=dict)
    hours: float = 0.0

    def cost(self, scale: ScaleSection) -> float | None:
        """The price of the whole; None where the experiment names none."""
        return None if scale.worker_price is None else self.worker_seconds / 3600 * scale.worker_price

    def cost_of(self, trial: str, scale: ScaleSection) -> float | None:
        """The price of one trial's part."""
        if scale.worker_price is None:
            return None
        return self.by_trial.get(trial, 0.0) / 3600 * scale.worker_price


def expected(experiment: Experiment, tokens: int) -> str | None:
    """What the experiment will cost at most, judged by the newest run of its name; None where no price is given.

    `tokens` are those of one trial that is trained to its end.
    """
    price = experiment.scale.worker_price
    if price is None:
        return None
    trials = experiment.number_of_trials
    for path in sorted(Path(experiment.storage).glob(f"{experiment.name}-*/{RESOLVED}"), reverse=True):
        run = Run(path.parent)
        trained = sum(rows[-1]["tokens"] for trial in run.trials() if (rows := trial.metrics()))
        if trained:
            hours = spent(run, experiment.scale.num_workers).worker_seconds / trained * tokens * trials / 3600
            return f"at most {hours * price:.4g} for {hours:.2g} worker-hours, as fast as {run.name} was"
    return f"{price:g} an hour of a worker; how many hours, a first run tells: sweep.num_samples=2"


def spent(run: Run, workers: int = 1, running: bool = False) -> Spent:
    """What the events say. `workers` is how many a solo trial has; of a `running` run, time goes on until now."""
    events = run.events()
    if running:
        events = [*events, {"time": time.time(), "event": "now"}]
    tenants: dict[int, set[str]] = {}  # host -> who is in it
    alone: set[str] = set()
    whole, parts, hours, before = 0.0, defaultdict[str, float](float), 0.0, None
    for event in events:
        kind, now = event["event"], event["time"]
        if before is not None and kind not in SESSION:  # between two sessions nothing runs
            gone = max(0.0, now - before)
            hours += gone / 3600
            whole += gone * (len(tenants) + workers * len(alone))
            for inside in tenants.values():
                for trial in inside:
                    parts[trial] += gone / len(inside)
            for trial in alone:
                parts[trial] += gone * workers
        before = now
        if kind in SESSION:
            tenants, alone = {}, set()
        elif kind == "host_opened":
            tenants[event["host"]] = set()
            whole += event["age_s"]
        elif kind in GONE:
            tenants.pop(event["host"], None)
        elif kind == "trial_started":
            home = event.get("host")
            (alone if home is None else tenants.setdefault(home, set())).add(event["trial"])
        elif kind in LEFT:
            alone.discard(event["trial"])
            for inside in tenants.values():
                inside.discard(event["trial"])
        elif kind == "ended":
            tenants, alone, before = {}, set(), None
    return Spent(whole, dict(parts), hours)
