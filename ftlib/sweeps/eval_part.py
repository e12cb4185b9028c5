"""Which rows trials are compared on before their end: a part of the held-out rows, the same for all trials of a sweep.

Its size follows from what a trial costs, its rows from the data and a seed. Nothing here loads a model: `ftlib check`
asks too.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftlib.config import Asha, Experiment
from ftlib.config.objectives import judged_by
from ftlib.files.json_files import damaged
from ftlib.run.context import EvalPart
from ftlib.run.directory import Run
from ftlib.run.layout import RESOLVED
from ftlib.sweeps.rungs import rungs_of
from ftlib.training.estimate import extremes, steps_an_epoch, steps_and_tokens

if TYPE_CHECKING:
    from ftlib.data import DataReport, Prepared
    from ftlib.evaluation.task import Question

SHARE = 0.1  # of a trial's training, that its evaluations on the part may cost
LEAST = 32  # rows: two in each of the 16 parts by which trials are told apart (ftlib/methods/table.py)
WRITTEN = 4  # what a token costs that is written, in tokens that are read
IGNORED = -100  # the label of a token without a loss


@dataclass(frozen=True)
class Plan:
    """What a trial's evaluations take. Costs are in tokens that are read once: a forward pass over so many."""

    experiment: Experiment
    data: DataReport
    questions: int = 0  # of the task that trials are compared by

    @cached_property
    def times(self) -> int:
        """How often a trial is evaluated, its end included."""
        return self._tightest[0]

    @cached_property
    def rows(self) -> int | None:
        """How many held-out rows the part has; None where it has all."""
        return self._size(self.data.eval_rows)

    @cached_property
    def asked(self) -> int | None:
        """How many of the task's questions the part has; None where it has all, or there is no task."""
        return self._size(self.questions) if self.questions else None

    @property
    def whole(self) -> bool:
        """Whether trials are compared on all rows."""
        return self.rows is None and self.asked is None

    @property
    def share(self) -> float:
        """Of the work of a trial that comes to its end, the share that is evaluation."""
        whole = self._cost(self.data.eval_rows, self.questions)
        if self.whole:
            spent = self.times * whole
        else:
            part = self._cost(self.rows or self.data.eval_rows, self.asked or self.questions)
            spent = self.times * part + whole
        return spent / (spent + self._tightest[1])

    def _size(self, there: int) -> int | None:
        wanted = self.experiment.sweep.eval_rows if self.experiment.sweep is not None else "all"
        judged = bool(judged_by(self.experiment))  # no trial is stopped, and all numbers are of the same rows
        if wanted == "all" or self.times == 1 or judged:
            return None
        if wanted != "auto":
            return wanted if wanted < there else None
        times, training = self._tightest
        allowed = SHARE * training / (times * self._cost(self.data.eval_rows, self.questions))
        size = max(int(allowed * there), LEAST, self._scheduler_needs)
        return size if size * times + there < there * times else None  # with all rows once more, it must save some

    @property
    def _scheduler_needs(self) -> int:
        scheduler = self.experiment.sweep.scheduler if self.experiment.sweep is not None else None
        return scheduler.min_eval_rows if isinstance(scheduler, Asha) else 0

    def _cost(self, rows: int, questions: int) -> float:
        length = self.data.lengths.mean
        task = self.experiment.evaluation.task(self.experiment.objective[0].rpartition("/")[0])
        return rows * length + questions * (length + WRITTEN * (task.max_new_tokens if task is not None else 0))

    @cached_property
    def _tightest(self) -> tuple[int, float]:
        """(evaluations, cost of the training) of the trial of the space that trains least for each evaluation."""
        marks = len(rungs_of(self.experiment, self.data).marks)
        found = [_evaluations_and_training(point, self.data, marks) for point in extremes(self.experiment)]
        return min(found, key=lambda pair: pair[1] / pair[0])


def _evaluations_and_training(experiment: Experiment, data: DataReport, marks: int) -> tuple[int, float]:
    """A step costs a forward and a backward pass; where the base is trained too, one more for the weights'
    gradients."""
    train, (steps, tokens) = experiment.train, steps_and_tokens(experiment, data)
    times = 1
    if not experiment.method.trains:
        return times, 0
    if train.eval_strategy == "steps":
        times = math.ceil(steps / (train.eval_steps or 1))
    elif train.eval_strategy == "epoch":
        times = math.ceil(steps / steps_an_epoch(experiment, data) * (train.evals_per_epoch or 1))
    return max(times, 1) + marks, tokens * (2 if experiment.adapter is not None else 3)


def trial_questions(experiment: Experiment) -> list[Question]:
    """The questions that trials answer at their evaluations. Raises DataError for those that cannot be read."""
    from ftlib.evaluation.task import parted, read_questions

    task = experiment.evaluation.task(experiment.objective[0].rpartition("/")[0])
    return parted(read_questions(task, experiment.data), task)[0] if task is not None else []


def eval_part(experiment: Experiment, data: Prepared) -> EvalPart:
    """The part for a new run: a function of the experiment and its data. Reads the held-out rows where it is one."""
    if experiment.sweep is None or not data.report.eval_rows:
        return EvalPart()
    questions = trial_questions(experiment)
    plan, seed = Plan(experiment, data.report, len(questions)), f"{data.hash}/{experiment.data.split_seed}"
    rows = None if plan.rows is None else stratified(map(_of_row, data.eval), plan.rows, seed)
    asked = None if plan.asked is None else stratified(map(_of_question, questions), plan.asked, seed)
    return EvalPart(rows, asked)


def part_of(run: Run, rows: int) -> EvalPart:
    """The part that a run began with; all `rows` of one that says nothing of it. Raises FtlibError for a damaged
    file."""
    match run.resolved.get("eval_part"):
        case None:
            return EvalPart()
        case {"rows": list() | None as some, "questions": list() | None as asked}:
            if _are_numbers(some, rows) and _are_numbers(asked, math.inf):
                return EvalPart(None if some is None else tuple(some), None if asked is None else tuple(asked))
    raise damaged(run.path / RESOLVED, "its eval_part names rows that are not there")


def _are_numbers(told: list[Any] | None, below: float) -> bool:
    return told is None or (bool(told) and all(type(row) is int and 0 <= row < below for row in told))


def stratified(rows: Iterable[tuple[object, int]], count: int, seed: str) -> tuple[int, ...]:
    """The numbers of `count` rows, each given as (answer, length): every n-th of them in order of these.

    So each answer that occurs several times, a label, has its share to within a row, and among rows of one answer each
    length (systematic sampling; Cochran 1977, Sampling Techniques, chapter 8). Where answers are all different, only
    the length counts.
    """
    told = list(rows)
    draw, often = random.Random(seed), Counter(answer for answer, _ in told)
    names = {answer: repr(answer) if times > 1 else "" for answer, times in often.items()}
    keys = [(names[answer], length, draw.random()) for answer, length in told]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    every = len(order) / count
    start = draw.random() * every
    return tuple(sorted(order[min(int(start + place * every), len(order) - 1)] for place in range(count)))


def _of_row(row: dict[str, Any]) -> tuple[object, int]:
    """Its label, or the tokens that are trained on; and how long it is."""
    answer = row.get("labels", row.get("label", row.get("answer")))
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        answer = tuple(token for token in answer if token != IGNORED)
    return answer, sum(len(value) for value in row.values() if isinstance(value, list | str))


def _of_question(question: Question) -> tuple[object, int]:
    return question.reference, sum(len(str(turn.get("content"))) for turn in question.prompt)


__all__ = ["Plan", "eval_part", "part_of", "stratified", "trial_questions"]
