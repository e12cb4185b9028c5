"""What a promotion may ask of tasks: a lead beyond chance, a loss within a margin, no loss beyond chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftlib.evaluation.statistics import Comparison
from ftlib.evaluation.verdict import as_number, comparison_with, is_gain, is_loss, p_of, rows_of


@dataclass(frozen=True)
class Demand:
    """One comparison that a promotion needs, by the first metric of a task. `rival` is a contender's name."""

    task: str
    rival: str

    def look(self, task: Mapping[str, Any], contender: str) -> tuple[bool, str]:
        """Whether a task of evaluation.json meets the demand, and a sentence with the numbers. `contender` is what the
        rival is called there."""
        metric = next(iter(task["metrics"]))
        own, theirs = (task["contenders"][name]["numbers"][metric]["value"] for name in ("winner", contender))
        numbers = f"it has {as_number(own, metric, task)} and {self._called} has {as_number(theirs, metric, task)}"
        met, found = self._judge(comparison_with(task, metric, contender), task, metric in task["shares"])
        return met, f"on {self.task} {numbers} {found}"

    @property
    def _called(self) -> str:
        return self.rival.removeprefix("registry:")

    def _judge(self, found: Mapping[str, Any], task: Mapping[str, Any], share: bool) -> tuple[bool, str]:
        raise NotImplementedError


class Lead(Demand):
    """Ours is better by more than chance (p < 0.05)."""

    def _judge(self, found: Mapping[str, Any], task: Mapping[str, Any], share: bool) -> tuple[bool, str]:
        gained = is_gain(found)
        told = "a loss" if is_loss(found) else "a lead" if gained else "no lead"
        return gained, f"({p_of(found['p'])} on {rows_of(task)}): {told} beyond chance"


class NoLoss(Demand):
    """Ours is not worse by more than chance (p < 0.05)."""

    def _judge(self, found: Mapping[str, Any], task: Mapping[str, Any], share: bool) -> tuple[bool, str]:
        lost = is_loss(found)
        return not lost, f"({p_of(found['p'])} on {rows_of(task)}): {'a' if lost else 'no'} loss beyond chance"


@dataclass(frozen=True)
class WithinMargin(Demand):
    """Ours is not worse by `margin` or more, in the metric's own unit: the whole interval of the difference says so
    (non-inferiority)."""

    margin: float

    def _judge(self, found: Mapping[str, Any], task: Mapping[str, Any], share: bool) -> tuple[bool, str]:
        allowed = f"the margin is {_amount(self.margin, share)}"
        if found["low"] is None:
            return False, f"({rows_of(task)} are too few for an interval): {allowed}"
        worse = _amount(max(0.0, -found["low"]), share)
        return _read(found).same_within(self.margin), f"(at most {worse} worse, on {rows_of(task)}): {allowed}"


def _read(found: Mapping[str, Any]) -> Comparison:
    """A comparison of evaluation.json."""
    difference = math.nan if found["difference"] is None else found["difference"]
    p = 1.0 if found["p"] is None else found["p"]
    return Comparison(difference, found["low"], found["high"], p, found["units"], found["test"])


def _amount(value: float, share: bool) -> str:
    """A difference of a metric: points of a share, else as it is."""
    return f"{100 * value:.3g} points" if share else f"{value:.3g}"
