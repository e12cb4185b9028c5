"""Tasks done by several models on the same rows: every answer, every number with its interval, every comparison."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftlib.config import DataSection, EvaluationSection, TaskSection
from ftlib.config.evaluation import Better
from ftlib.errors import FtlibError
from ftlib.evaluation.metrics import score
from ftlib.evaluation.score import Score
from ftlib.evaluation.statistics import compare, interval
from ftlib.evaluation.task import Answer, Question, digest, verdict_rows

REPLICA = "seed "  # how the names of contenders begin that have the winner's settings and another seed
Answering = Callable[[TaskSection, Sequence[Question]], list[Answer]]
Number = dict[str, float | None]


@dataclass(frozen=True)
class Contender:
    """Somebody who does the tasks. `what` says in a few words who that is."""

    name: str
    what: str
    answer: Answering
    model: Any = None  # loaded; None behind a URL
    tokenizer: Any = None


@dataclass
class TaskResult:
    """One task: its questions, and what each contender made of them."""

    task: TaskSection
    questions: list[Question]
    seed: int
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)  # contender -> metric -> score
    what: dict[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> list[str] | None:
        """What rows of one origin share, a row; None where each row counts."""
        return None if self.task.group is None else [str(question.group) for question in self.questions]

    @property
    def metrics(self) -> dict[str, Better]:
        """Each metric's name, and which way is better."""
        return {section.name: section.better for section in self.task.metrics}

    @property
    def units(self) -> int:
        """What the statistics count."""
        return len(self.questions) if self.groups is None else len(set(self.groups))

    def add(self, contender: Contender) -> None:
        """Has a contender do the task."""
        answers = contender.answer(self.task, self.questions)
        scores = {section.name: score(section, self.questions, answers) for section in self.task.metrics}
        self.answers[contender.name], self.scores[contender.name] = answers, scores
        self.what[contender.name] = contender.what

    def ask(self, contender: Contender) -> None:
        """Has a contender answer the questions, and scores nothing."""
        self.answers[contender.name] = contender.answer(self.task, self.questions)
        self.what[contender.name] = contender.what

    def to_dict(self, ours: str | None) -> dict[str, Any]:
        """Numbers and comparisons, as evaluation.json has them. `ours` is compared with each of the others."""
        return {
            "role": self.task.role,
            "rows": len(self.questions),
            "units": self.units,
            "data": self.task.data,
            "hash": digest(self.questions),
            "metrics": self.metrics,
            "shares": [name for name, one in next(iter(self.scores.values()), {}).items() if one.is_share],
            "contenders": {name: self._numbers(name) for name in self.scores},
            "comparisons": list(self._comparisons(ours)),
        }

    def _numbers(self, name: str) -> dict[str, Any]:
        answers = self.answers[name]
        seconds, tokens = sum(one.seconds for one in answers), sum(one.tokens for one in answers)
        return {
            "what": self.what[name],
            "numbers": {metric: self._number(one) for metric, one in self.scores[name].items()},
            "tokens_per_second": round(tokens / seconds, 2) if tokens and seconds else None,
            "seconds_per_answer": round(seconds / len(answers), 4) if answers else None,
            "warnings": [one.warning for one in self.scores[name].values() if one.warning],
        }

    def _number(self, one: Score) -> Number:
        span = interval(one, self.groups, seed=self.seed)
        low, high = (None, None) if span is None else (span.low, span.high)
        return {"value": finite(one.number()), "low": finite(low), "high": finite(high)}

    def _comparisons(self, ours: str | None) -> Iterator[dict[str, Any]]:
        for name in self.scores if ours in self.scores else ():
            if name == ours:
                continue
            for metric, own in self.scores[str(ours)].items():
                found = compare(own, self.scores[name][metric], self.groups, seed=self.seed)
                yield {
                    "metric": metric,
                    "ours": ours,
                    "theirs": name,
                    "difference": finite(found.difference),
                    "low": finite(found.low),
                    "high": finite(found.high),
                    "p": finite(found.p),
                    "units": found.units,
                    "test": found.test,
                }

    def lines(self) -> Iterator[str]:
        """The lines of answers.jsonl."""
        for name, answers in self.answers.items():
            for row, (question, answer) in enumerate(zip(self.questions, answers, strict=True)):
                scores = {metric: finite(float(one.rows[row])) for metric, one in self.scores[name].items()}
                yield json.dumps(
                    {
                        "task": self.task.name,
                        "contender": name,
                        "row": row,
                        "group": question.group,
                        "prompt": list(question.prompt),
                        **({"sent": list(answer.sent)} if answer.sent not in (None, question.prompt) else {}),
                        "reference": question.reference,
                        "answer": answer.text,
                        "scores": scores,
                        "seconds": round(answer.seconds, 4),
                        "tokens": answer.tokens,
                    },
                    ensure_ascii=False,
                )


@dataclass
class Results:
    """All tasks. `failed` says, a sentence each, what could not be done."""

    tasks: Sequence[TaskResult]
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self, ours: str | None) -> dict[str, Any]:
        """The part of evaluation.json that is about tasks."""
        return {
            "time": time.time(),
            "seconds": round(self.seconds, 1),
            "tasks": {one.task.name: one.to_dict(ours) for one in self.tasks},
            "failed": self.failed,
        }

    def lines(self) -> Iterator[str]:
        """The lines of answers.jsonl."""
        for one in self.tasks:
            yield from one.lines()


Doing = Callable[[TaskResult, Contender], None]


def do_tasks(
    section: EvaluationSection,
    data: DataSection,
    contenders: Iterable[Callable[[], Contender]],
    metrics: Sequence[str] = (),
) -> Results:
    """Every task by every contender, one contender after another: each is made when its turn comes.

    `metrics` are what trials were judged by: of their tasks, the rows that they have answered are left out.
    Raises DataError for tasks that cannot be read. A contender that fails is a sentence in `failed`.
    """
    tasks = [TaskResult(task, verdict_rows(task, data, metrics), section.seed) for task in section.tasks]
    return done(tasks, contenders)


def done(
    tasks: Sequence[TaskResult], contenders: Iterable[Callable[[], Contender]], do: Doing = TaskResult.add
) -> Results:
    """The tasks, done by all contenders. A contender that fails is a sentence in `failed`."""
    started = time.perf_counter()
    results = Results(tasks)
    for make in contenders:
        try:
            contender = make()
        except FtlibError as error:
            results.failed.append(str(error))
            continue
        for one in results.tasks:
            try:
                do(one, contender)
            except FtlibError as error:
                results.failed.append(f"{contender.name} did not do {one.task.name}: {error}")
    results.seconds = time.perf_counter() - started
    return results


def finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return float(value) if value is not None and math.isfinite(value) else None


def best_rival(task: Mapping[str, Any], metric: str, ours: str) -> str | None:
    """Of a task in evaluation.json: the contender besides `ours` with the best number; None where there is none."""
    sign = 1 if task["metrics"][metric] == "max" else -1
    others = {name: one for name, one in task["contenders"].items() if name != ours and not name.startswith(REPLICA)}
    values = {name: one["numbers"][metric]["value"] for name, one in others.items()}
    known = {name: value for name, value in values.items() if value is not None}
    return max(known, key=lambda name: sign * known[name], default=None)
