"""The first screen: the verdict, what it rests on, the leaderboard, and the command that promotes the winner."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from dataclasses import dataclass

from ftlib.report.facts import took
from ftlib.report.results import WINNER, Evaluation, Task
from ftlib.report.shapes import Line, Table
from ftlib.report.words import NONE, count, last_parts, number, percent, setting
from ftlib.run.directory import Run
from ftlib.run.leaderboard import Leaderboard, Row
from ftlib.run.leaderboard_text import figure, value_headings, values
from ftlib.run.places import url_of

CHANCE = "within chance of the best"


@dataclass(frozen=True)
class Bar:
    """One contender's number: the bar, and its interval, in per cent of the scale."""

    name: str
    number: str
    interval: str
    at: float
    low: float
    high: float
    is_winner: bool


@dataclass(frozen=True)
class Result:
    """One metric of one task."""

    title: str
    note: str
    bars: list[Bar]


def verdict(board: Leaderboard, evaluation: Evaluation | None) -> list[str]:
    """The parts of the verdict's sentence; where the run was not evaluated, what the leaderboard says."""
    if evaluation is not None and evaluation.verdict:
        return [part.strip() for part in evaluation.verdict.split(";") if part.strip()]
    if board.best is None:
        return ["No trial has an evaluation yet."]
    sentence = f"Trial {board.best.trial} is the best: {board.metric} {number(board.best.final)}"
    base = board.base_beside(board.best)
    if base is None:
        return [f"{sentence}."]
    compared = f" ({gained})" if (gained := board.gained(board.best)) else ""
    return [f"{sentence}, the base {number(base)}{compared}."]


def notes(evaluation: Evaluation | None) -> list[str]:
    """What could not be evaluated, and how far chance goes."""
    if evaluation is None:
        return []
    found = list(evaluation.failed)
    if evaluation.seeds is not None:
        seeds = evaluation.seeds
        task, _, metric = seeds.metric.rpartition("/")
        shares = evaluation.tasks[task].shares if task in evaluation.tasks else []
        scale = percent if metric in shares else number
        values = ", ".join(f"{scale(value)} (seed {seed})" for seed, value in seeds.values.items())
        found.append(f"Trial {seeds.trial} was trained again with other seeds: {seeds.metric} {values}.")
    return found


def about(run: Run, board: Leaderboard) -> list[str]:
    """What was done, to what, when: short facts for the line below the title."""
    states = Counter(row.state for row in board.rows)
    told = ", ".join(f"{amount} {state}" for state, amount in states.items())
    events = run.events()
    day = time.strftime("%d %B %Y", time.gmtime(events[0]["time"])) if events else ""
    trials = f"{count(len(board.rows), 'trial')} ({told})" if told else ""
    return [*subject(run, board), *(fact for fact in (trials, took(run), day) if fact)]


def subject(run: Run, board: Leaderboard) -> list[str]:
    """The base, the method, the adapter."""
    experiment = run.resolved.get("experiment", {})
    kinds = [str((experiment.get(key) or {}).get("type") or "") for key in ("method", "adapter")]
    return [fact for fact in (f"base {board.model}" if board.model else "", *kinds) if fact]


def results(evaluation: Evaluation | None) -> list[Result]:
    """Each task's first metric, target tasks before those that must not be forgotten."""
    if evaluation is None:
        return []
    tasks = sorted(evaluation.tasks.items(), key=lambda task: task[1].role != "target")
    return [result for name, task in tasks if (result := _result(name, task))]


def _result(name: str, task: Task) -> Result | None:
    metric = next(iter(task.metrics), None)
    numbers = {who: told.numbers[metric] for who, told in task.contenders.items() if metric in told.numbers}
    if metric is None or not any(told.value is not None for told in numbers.values()):
        return None
    share = metric in task.shares
    largest = 1.0 if share else max(abs(edge or 0.0) for told in numbers.values() for edge in (told.value, told.high))
    scale = percent if share else number
    bars = [
        Bar(
            task.name_of(who),
            scale(told.value),
            f"{scale(told.low)} to {scale(told.high)}" if told.low is not None and told.high is not None else "",
            _of_scale(told.value, largest),
            _of_scale(told.low, largest),
            _of_scale(told.high, largest),
            who == WINNER,
        )
        for who, told in numbers.items()
        if told.value is not None
    ]
    lower = ", lower is better" if task.metrics[metric] == "min" else ""
    role = ", should not be forgotten" if task.role == "regression" else ""
    return Result(name, f"{metric}{lower}, {count(task.rows, 'row')}{role}", bars)


def _of_scale(value: float | None, largest: float) -> float:
    return round(min(100.0, max(0.0, 100 * (value or 0.0) / largest)), 2) if largest else 0.0


def leaderboard_table(board: Leaderboard, evaluation: Evaluation | None) -> Table:
    """The base, then the trials, best first."""
    ties = set(evaluation.ties if evaluation else [])
    paths = board.parameters
    names = last_parts(paths)
    compared, priced = board.footer is not None, board.cost is not None
    heads = value_headings(board)
    columns = ["Rank", "Trial", "State", *heads, *(["vs base"] if compared else []), *names.values()]
    columns += ["Cost"] if priced else []
    rows = [*([board.base] if board.base else []), *board.rows]
    lines = [_line(row, board, paths, ties, evaluation.winner if evaluation else None) for row in rows]
    texts = {
        place for place in range(3 + len(heads), len(columns)) if any(_is_text(line.cells[place]) for line in lines)
    }
    numeric = frozenset({0, *range(3, len(columns))}) - texts
    return Table("The trials, best first", columns, lines, numeric, header=1)


def _is_text(cell: str) -> bool:
    return any(character.isalpha() for character in cell.replace("e-", "").replace("e+", ""))


def _line(row: Row, board: Leaderboard, paths: list[str], ties: set[str], winner: str | None) -> Line:
    compared, priced = board.footer is not None, board.cost is not None
    is_base, is_best = row is board.base, row is board.best
    tags = ["on the front"] * row.front + ["beyond a bound"] * (row.broken > 0)
    tags += ["best"] * is_best + [CHANCE] * (row.trial in ties and not is_best)
    tags += ["winner"] * (row.trial == winner and not is_best)
    cells = [
        "–" if row.rank is None else str(row.rank),
        "untuned base" if is_base else row.name,
        row.state,
        *(NONE if value is None else figure(value) for value in values(row, board)),
        *([board.gained(row)] if compared else []),
        *(setting(row.params.get(path, "")) for path in paths),
        *([number(row.cost) if row.cost is not None else ""] if priced else []),
    ]
    return Line(cells, "base" if is_base else "best" if is_best else "", tuple(tags))


def tied(board: Leaderboard, evaluation: Evaluation | None) -> str:
    """Which trials cannot be told from the best; empty where there is none."""
    others = [trial for trial in (evaluation.ties if evaluation else []) if not board.best or trial != board.best.trial]
    if not others or board.best is None:
        return ""
    named = ", ".join(others[:12]) + (f" and {len(others) - 12} more" if len(others) > 12 else "")
    return f"Chance alone can explain the difference between {board.best.trial} and {named}."


def promotion(run: Run, board: Leaderboard, evaluation: Evaluation | None) -> str | None:
    """The command that promotes the winner; None where there is none."""
    if board.best is None:
        return None
    words = ["ftlib", "promote", url_of(run) or str(run.path)]
    if evaluation is not None and evaluation.winner not in (None, board.best.trial):
        words.append(str(evaluation.winner))  # else it is the best
    return shlex.join([*words, "--as", run.resolved.get("experiment", {}).get("name") or "NAME"])
