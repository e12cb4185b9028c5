"""The task that trials are compared by: they do it at each of their evaluations.

Where `sweep.metric` is a task's (`tickets/exact_match`), a trial answers the questions of that task whenever it is
evaluated, and its row of metrics.jsonl has the task's numbers beside its loss. Other tasks wait for the end of the
sweep. The verdict at the end is on the rows of the task that no trial has answered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ftlib.config import Experiment, TaskSection
from ftlib.evaluation.answers import Writer, answers
from ftlib.evaluation.metrics import score
from ftlib.evaluation.task import Answer, Question, parted, read_questions
from ftlib.methods.table import PARTS, PARTS_OF


@dataclass(frozen=True)
class TrialTask:
    """A task, its questions, and how the trials of this run write."""

    task: TaskSection
    questions: list[Question]
    writer: Writer
    metric: str  # what trials are compared by: it is reported in parts too
    timed: bool = False  # whether it says how long an answer takes

    @classmethod
    def of(cls, experiment: Experiment, metric: str, tokenizer: Any, template: str | None) -> TrialTask | None:
        """None where trials are compared by something else. Raises DataError for questions that cannot be read."""
        task = experiment.evaluation.task(metric.rpartition("/")[0])
        if task is None:
            return None
        scores = any(section.type == "perplexity" for section in task.metrics)
        writer = Writer(tokenizer, template, task.max_new_tokens, scores)
        some, _ = parted(read_questions(task, experiment.data), task)
        return cls(task, some, writer, metric)

    def on(self, questions: Sequence[int] | None) -> TrialTask:
        """The same task with some of its questions, by their numbers. None is all."""
        return self if questions is None else replace(self, questions=[self.questions[row] for row in questions])

    def numbers(self, model: Any) -> dict[str, Any]:
        """What a loaded model gets: {"tickets/exact_match": 0.83, "tickets/exact_match_parts": [...]}."""
        started = time.perf_counter()
        written = answers(model, self.writer, self.questions)
        taken = 1000 * (time.perf_counter() - started) / len(written)
        return self.numbers_of(written) | ({"latency_ms": taken} if self.timed else {})

    def numbers_of(self, written: Sequence[Answer]) -> dict[str, Any]:
        """The same of answers that are there already, in the order of the questions."""
        found: dict[str, Any] = {}
        for section in self.task.metrics:
            scored, name = score(section, self.questions, written), f"{self.task.name}/{section.name}"
            found[name] = float(scored.number())
            if name == self.metric:
                parts = min(PARTS, len(written))
                rows = [np.arange(part, len(written), parts) for part in range(parts)]
                found[f"{name}{PARTS_OF}"] = [float(scored.number(some)) for some in rows]
        return found


def trial_tasks(
    experiment: Experiment, metric: str, judged_by: Sequence[str], tokenizer: Any, template: str | None
) -> list[TrialTask]:
    """The tasks that trials do at their evaluations: that of `metric` first, then those of the other metrics.

    Where `judged_by` asks for latency_ms, the first of them is timed. Raises DataError as `TrialTask.of`.
    """
    firsts = {name.rpartition("/")[0]: name for name in reversed((metric, *judged_by))}
    ordered = dict.fromkeys(name.rpartition("/")[0] for name in (metric, *judged_by))
    found = [TrialTask.of(experiment, firsts[task], tokenizer, template) for task in ordered]
    tasks = [task for task in found if task is not None]
    return [replace(task, timed="latency_ms" in judged_by and not place) for place, task in enumerate(tasks)]
