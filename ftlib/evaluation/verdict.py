"""One sentence on a run: what its winner does better than the base, beyond chance, and what it has forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.evaluation.results import best_rival

CHANCE = 0.05  # a difference with a higher p may well be chance
CALLED = {"few_shot": "few-shot base", "rag": "base with passages", "majority": "majority class"}


def verdict(evaluation: Mapping[str, Any], ours: str = "winner") -> str:
    """Of evaluation.json: `tickets: 83.5 % (77.7 to 88.0), few-shot base 41.0 %, p < 0.001 on 200 rows; ...`."""
    told = [_of_task(name, task, ours) for name, task in evaluation["tasks"].items() if ours in task["contenders"]]
    seeds = evaluation.get("seeds")
    return "; ".join([*filter(None, told), *([_of_seeds(seeds, evaluation)] if seeds else [])])


def _of_task(name: str, task: Mapping[str, Any], ours: str) -> str:
    metric = next(iter(task["metrics"]))
    number, rival = task["contenders"][ours]["numbers"][metric], best_rival(task, metric, ours)
    own = as_number(number["value"], metric, task)
    if task["role"] == "regression":
        rival = "base" if "base" in task["contenders"] else rival
        return f"{name}: {own}{_lost(task, metric, rival)}"
    return f"{name}: {written(number, metric, task)}{_gained(task, metric, rival)}"


def written(number: Mapping[str, float | None], metric: str, task: Mapping[str, Any]) -> str:
    """A number with its interval: `83.5 % (77.7 to 88.0)`."""
    own, low, high = (number[key] for key in ("value", "low", "high"))
    span = "" if low is None or high is None else f" ({_bare(low, metric, task)} to {_bare(high, metric, task)})"
    return f"{as_number(own, metric, task)}{span}"


def _gained(task: Mapping[str, Any], metric: str, rival: str | None) -> str:
    if rival is None:
        return f" on {rows_of(task)}"
    found, theirs = comparison_with(task, metric, rival), task["contenders"][rival]["numbers"][metric]["value"]
    chance = "" if (found["p"] or 0) < CHANCE else ", no difference beyond chance"
    return f", {called(rival)} {as_number(theirs, metric, task)}, {p_of(found['p'])} on {rows_of(task)}{chance}"


def _lost(task: Mapping[str, Any], metric: str, rival: str | None) -> str:
    if rival is None:
        return ""
    found, theirs = comparison_with(task, metric, rival), task["contenders"][rival]["numbers"][metric]["value"]
    beside = f", {called(rival)} {as_number(theirs, metric, task)}"
    if is_loss(found):
        return f"{beside}, a loss beyond chance ({p_of(found['p'])})"
    return f"{beside}, no loss beyond chance"


def is_loss(comparison: Mapping[str, Any]) -> bool:
    """Whether ours is worse by more than chance."""
    return (comparison["difference"] or 0) < 0 and (1.0 if comparison["p"] is None else comparison["p"]) < CHANCE


def is_gain(comparison: Mapping[str, Any]) -> bool:
    """Whether ours is better by more than chance."""
    return (comparison["difference"] or 0) > 0 and (1.0 if comparison["p"] is None else comparison["p"]) < CHANCE


def called(contender: str) -> str:
    """A contender's name in a sentence."""
    return CALLED.get(contender, contender)


def comparison_with(task: Mapping[str, Any], metric: str, rival: str) -> Mapping[str, Any]:
    """Of a task in evaluation.json: ours against a contender."""
    found: Mapping[str, Any] = next(
        one for one in task["comparisons"] if one["metric"] == metric and one["theirs"] == rival
    )
    return found


def rows_of(task: Mapping[str, Any]) -> str:
    """How much a number is of: `200 rows`, `40 groups of 200 rows`."""
    rows = _counted(task["rows"], "row") + (" that also chose the trial" if task.get("chose") else "")
    return rows if task["units"] == task["rows"] else f"{_counted(task['units'], 'group')} of {rows}"


def _counted(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def as_number(value: float | None, metric: str, task: Mapping[str, Any]) -> str:
    """A number without its interval: `83.5 %`."""
    return _bare(value, metric, task) + (" %" if value is not None and metric in task["shares"] else "")


def _bare(value: float | None, metric: str, task: Mapping[str, Any]) -> str:
    if value is None:
        return "no number"
    return f"{100 * value:.1f}" if metric in task["shares"] else f"{value:.4g}"


def p_of(p: float | None) -> str:
    """A p as a reader needs it: `p < 0.001`."""
    if p is None:
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _of_seeds(seeds: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    task, _, metric = str(seeds["metric"]).rpartition("/")
    share = metric in evaluation["tasks"].get(task, {}).get("shares", ())
    std = seeds["std"] * 100 if share else seeds["std"]
    lucky = ", and the winner's own seed was a lucky one" if seeds.get("lucky") else ""
    return f"{len(seeds['values'])} seeds ± {std:.2g}{lucky}"
