"""How much better a trial is than the untuned base: percent of a loss, points of a share, else the plain difference.

A loss is far from 0, so percent of it says something. An untuned base may be right in 2 % of the rows, or have a reward
of -0.001: percent of that is no number that a person can read ("+3,250 %").
"""

from __future__ import annotations

from typing import Any, Literal

from ftlib.config import EvaluationSection
from ftlib.config.methods import SHARES

Unit = Literal["percent", "points", "difference"]
COLUMN_OF: dict[Unit, str] = {"percent": "gain_percent", "points": "gain_points", "difference": "gain"}
SAID: dict[Unit, str] = {"percent": "in percent", "points": "in percentage points", "difference": ""}


def unit_of(metric: str, mode: str, experiment: dict[str, Any]) -> Unit:
    """The unit for a metric of an experiment's trials, or of its tasks."""
    tasks = EvaluationSection.model_validate(experiment.get("evaluation") or {})
    if metric in (*SHARES, *tasks.shares):
        return "points"
    return "percent" if mode == "min" else "difference"


def gain_of(value: float | None, base: float | None, mode: str, unit: Unit) -> float | None:
    """Above 0 where `value` is better; None where there are no two numbers, or nothing that percent could be of."""
    if value is None or base is None or (unit == "percent" and base == 0):
        return None
    gain = base - value if mode == "min" else value - base
    return gain if unit == "difference" else 100 * gain / (abs(base) if unit == "percent" else 1)


def told(gain: float | None, unit: Unit) -> str:
    """`+91.0 %`, `+76.0 points`, `+0.651`; empty where there is none."""
    if gain is None:
        return ""
    return f"{gain:+.4g}" if unit == "difference" else f"{gain:+,.1f} {'%' if unit == 'percent' else 'points'}"
