"""A range test of learning rates (Smith 2017, arXiv:1506.01186): one adapter a rate, side by side in one pack.

Smith raises the rate of one model step by step, so that each rate meets a model that the rates before have changed. A
pack trains an adapter for each rate instead: all begin alike, see the same rows, and cost little more than one.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftlib.config import Experiment
from ftlib.config.packs import largest_rank
from ftlib.data import Prepared
from ftlib.methods.pack_losses import objective
from ftlib.pack.engine import Pack
from ftlib.pack.frozen_base import FrozenBase
from ftlib.run.context import Rungs, Setting
from ftlib.run.directory import Run

STEPS = 24  # of each rate
ROWS = 64  # held-out rows that rates are compared on
PER_DECADE = 3
LEARNS = 0.3  # of what the best rate gains, the share from which on a rate is in the range
WORSE = 0.1  # of it, how much a rate above the best may lose
HIGHER = 3.0  # so far above the last good rate: a sweep may also try half of the alpha, which wants twice the rate
LOWER = 10.0  # the range reaches so far below the best at least: a rate that is slow now has longer in the sweep


@dataclass(frozen=True)
class Tried:
    """A rate, the loss of each step, and the loss on held-out rows before the first step and after the last; None where
    the rate has broken the training."""

    rate: float
    losses: list[float]
    before: float
    after: float | None


@dataclass(frozen=True)
class Suggested:
    """The rate that was best, and the range around it that a sweep should look at."""

    best: float
    low: float
    high: float


def rates_between(low: float, high: float, per_decade: int = PER_DECADE) -> list[float]:
    """Rates at equal ratios from `low` to `high`, to three digits."""
    count = max(2, round(math.log10(high / low) * per_decade) + 1)
    return [float(f"{low * (high / low) ** (place / (count - 1)):.3g}") for place in range(count)]


def try_rates(
    experiment: Experiment,
    data: Prepared,
    rates: Sequence[float],
    steps: int = STEPS,
    say: Callable[[str], None] = lambda sentence: None,
) -> list[Tried]:
    """Trains an adapter at each rate, `steps` steps without a schedule. `data` is the experiment's, prepared.

    Raises CannotPack for a base that cannot hold a pack, and TrialError for an experiment that cannot be trained.
    """
    short = _short(experiment, steps)
    rows = range(0, len(data.eval), max(1, len(data.eval) // ROWS))
    few = replace(data, eval=data.eval.select(rows))
    with tempfile.TemporaryDirectory(prefix="ftlib-rates-") as folder:
        run = Run.create(folder, "rates", "", {})
        setting = Setting(run=str(run.path), data=str(data.path), resolved=short.to_dict(), rungs=Rungs("steps"))
        base = FrozenBase(short, few, len(rates), largest_rank(short), "cuda" if short.scale.use_gpu else "cpu")
        pack = Pack(base, setting)
        (untuned,) = pack.evaluations(None, [objective(short, few, base)])
        found: dict[str, dict[str, Any]] = {}
        for number, rate in enumerate(rates):
            name = f"{number:03d}"
            pack.join(name, {"train.learning_rate": rate}, lambda row, name=name: found.update({name: row}))  # type: ignore[misc]
        while pack.members:
            pack.tick()
            say(f"{max((member.step for member in pack.members.values()), default=steps)} of {steps} steps")
        before = float(untuned["eval_loss"])
        return [
            Tried(rate, _losses(run, f"{number:03d}"), before, _after(found.get(f"{number:03d}")))
            for number, rate in enumerate(rates)
        ]


def _short(experiment: Experiment, steps: int) -> Experiment:
    tree = experiment.to_dict()
    tree["sweep"], tree["evaluation"] = None, {}
    tree["train"] |= {
        "max_steps": steps,
        "lr_scheduler_type": "constant",
        "lr_scheduler_kwargs": {},
        "warmup_steps": 0,
        "eval_strategy": "end",
        "evals_per_epoch": None,
        "save_steps": None,
        "logging_steps": 1,
        "early_stopping_patience": None,
    }
    return Experiment.parse(tree)


def _losses(run: Run, name: str) -> list[float]:
    return [row["loss"] for row in run.trial(name).metrics() if "loss" in row]


def _after(row: dict[str, Any] | None) -> float | None:
    value = None if row is None else row.get("eval_loss")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def suggested(tried: Sequence[Tried]) -> Suggested | None:
    """The range for a sweep; None where no rate has learned anything.

    It begins at the lowest rate that gains `LEARNS` of what the best gains, and at a tenth of the best at the latest.
    It ends three times above the last rate that is about as good as the best.
    """
    known = [(one.rate, one.before - one.after) for one in tried if one.after is not None]
    best_rate, gain = max(known, key=lambda pair: pair[1], default=(0.0, 0.0))
    if gain <= 0:
        return None
    low = min(rate for rate, own in known if own >= LEARNS * gain)
    high = max(rate for rate, own in known if own >= (1 - WORSE) * gain)
    return Suggested(best_rate, _plain(min(low, best_rate / LOWER)), _plain(high * HIGHER))


def _plain(rate: float) -> float:
    return float(f"{rate:.2g}")


__all__ = ["STEPS", "Suggested", "Tried", "rates_between", "suggested", "try_rates"]
