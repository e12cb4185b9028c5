"""What a sweep came to, for a tracker: its winner, its verdict, the files that say so, some of the answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ftlib.files.json_files import read_json, read_rows
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import ANSWERS, EVALUATION, LEADERBOARD, REPORT
from ftlib.run.leaderboard import Leaderboard, leaderboard
from ftlib.run.plain_text import one_line

ENDS = ("started", "resumed", "ended", "interrupted")  # of an execution, in events.jsonl


@dataclass(frozen=True)
class Results:
    """`trouble` is why the sweep itself failed; None where it came to its end."""

    run: Run
    board: Leaderboard
    trouble: str | None = None

    @classmethod
    def of(cls, run: Run, trouble: str | None = None) -> Results:
        """As the run directory stands now."""
        return cls(run, leaderboard(run), trouble)

    @property
    def winner(self) -> Trial | None:
        """The trial that the leaderboard has first."""
        return self.run.trial(self.board.best.trial) if self.board.best else None

    @property
    def failed(self) -> int:
        """How many trials failed."""
        return sum(row.state == "failed" for row in self.board.rows)

    @property
    def verdict(self) -> str:
        """The sentence of `evaluation.json`; that of the leaderboard where there is none."""
        told = (read_json(self.run.path / EVALUATION, dict) or {}).get("verdict")
        if isinstance(told, str) and told:
            return one_line(told)
        best = self.board.best
        if best is None:
            return "no trial has an evaluation"
        gain = "" if best.gain is None else f", {self.board.gained(best)} against the base"
        return f"trial {best.trial} is best: {self.board.metric} {best.final:.4g}{gain}"

    @property
    def numbers(self) -> dict[str, float]:
        """The tasks' metrics of `evaluation.json` as `task/metric/contender`."""
        tasks = (read_json(self.run.path / EVALUATION, dict) or {}).get("tasks") or {}
        return {
            f"{task}/{metric}/{contender}": number["value"]
            for task, told in tasks.items()
            for contender, one in told["contenders"].items()
            for metric, number in one["numbers"].items()
            if number.get("value") is not None
        }

    def files(self, answers: bool) -> list[Path]:
        """The leaderboard, the evaluation and the report, as far as they are there; the report quotes answers."""
        names = (LEADERBOARD, EVALUATION, REPORT) if answers else (LEADERBOARD, EVALUATION)
        return [self.run.path / name for name in names if (self.run.path / name).is_file()]

    def answers(self, most: int) -> list[dict[str, Any]]:
        """At most so many lines of `answers.jsonl`: questions at even distances, each with all who answered it."""
        lines = sorted(read_rows(self.run.path / ANSWERS), key=_question)
        questions = [list(group) for _, group in groupby(lines, key=_question)]
        if len(lines) > most:
            kept = max(most * len(questions) // len(lines), 1)
            questions = [questions[place * len(questions) // kept] for place in range(kept)]
        return [line for question in questions for line in question][:most]


def _question(line: dict[str, Any]) -> tuple[str, int]:
    return str(line.get("task")), int(line.get("row") or 0)


def has_ended(run: Run) -> bool:
    """Whether the latest execution came to its end, and was not interrupted."""
    told = [event["event"] for event in run.events() if event["event"] in ENDS]
    return bool(told) and told[-1] == "ended"


def best_value(run: Run, trial: Trial) -> float | None:
    """A trial's objective on the rows that all trials are compared on, as the leaderboard has it; None where it was not
    evaluated, or has failed."""
    metric, mode = run.objective
    values = [float(row[metric]) for row in trial.evaluations(metric)]
    if not values or trial.state == "failed":
        return None
    return (min if mode == "min" else max)(values, default=math.nan)
