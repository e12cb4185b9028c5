"""Answers side by side: what each contender wrote to the same row, and where the winner got better or worse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from ftlib.evaluation.label_metrics import label_of
from ftlib.report.results import WINNER, AnswerRow, Evaluation, Task
from ftlib.report.shapes import Line, Table
from ftlib.report.words import count, number
from ftlib.run.directory import Run
from ftlib.run.leaderboard import Leaderboard

ROWS = 100  # of a task on the page
ROWS_OF_ALL = 400  # of all tasks together
TEXT = 1000  # characters of a text
LABELS = 20  # of a confusion matrix; rarer ones are one
NO_LABEL, RARE = "no label", "other labels"
SPOKEN = {
    "base": "the base",
    "few_shot": "the base with examples",
    "rag": "the base with passages",
    "majority": "the majority class",
}
BY_LABEL = ("accuracy", "f1_macro")
Change = Literal["worse", "better", "same"]
ORDER: tuple[Change, ...] = ("worse", "better", "same")


@dataclass(frozen=True)
class Shown:
    """One contender's text and its score."""

    contender: str
    text: str
    score: str


@dataclass(frozen=True)
class Question:
    """One row of a task, with every answer to it."""

    row: int
    prompt: str
    reference: str | None
    answers: list[Shown]
    change: Change


@dataclass(frozen=True)
class Answers:
    """The rows of a task that are on the page."""

    task: str
    lead: str
    questions: list[Question]
    confusions: list[Table]


def side_by_side(evaluation: Evaluation, answers: list[AnswerRow]) -> list[Answers]:
    """The tasks whose answers were kept."""
    by_task: dict[str, list[AnswerRow]] = {}
    for answer in answers:
        by_task.setdefault(answer.task, []).append(answer)
    most = max(1, min(ROWS, ROWS_OF_ALL // max(1, len(by_task))))
    return [_task(name, evaluation.tasks.get(name, Task()), rows, most) for name, rows in by_task.items()]


def _task(name: str, task: Task, answers: list[AnswerRow], most: int) -> Answers:
    asked: dict[int, dict[str, AnswerRow]] = {}
    for answer in answers:
        asked.setdefault(answer.row, {})[answer.contender] = answer
    ours, theirs = _compared(answers)
    metric = _metric(task, answers)
    questions = [_question(row, by, task, metric, ours, theirs) for row, by in sorted(asked.items())]
    counts = Counter(question.change for question in questions)
    lead = f"{count(len(questions), 'row')}."
    if theirs is not None and metric is not None:
        lead = (
            f"Against {SPOKEN.get(theirs, theirs)}, by {metric}: {counts['better']:,} of "
            f"{count(len(questions), 'row')} got better, {counts['worse']:,} worse, {counts['same']:,} stayed the same."
        )
    if len(questions) > most:
        lead += f" {most} rows are on this page; answers.jsonl has the other {len(questions) - most:,}."
    return Answers(name, lead, _chosen(questions, most), list(_confusions(task, answers)))


def _compared(answers: list[AnswerRow]) -> tuple[str, str | None]:
    """Who is compared with whom: the winner, and the base, or the first of the others."""
    names = list(dict.fromkeys(answer.contender for answer in answers))
    ours = WINNER if WINNER in names else names[-1]
    others = sorted((name for name in names if name != ours), key=lambda name: name != "base")
    return ours, others[0] if others else None


def _metric(task: Task, answers: list[AnswerRow]) -> str | None:
    """The first metric of the task that rows have a score of."""
    scored = {name for answer in answers for name, score in answer.scores.items() if score is not None}
    return next((name for name in (*task.metrics, *sorted(scored)) if name in scored), None)


def _question(
    row: int, by: dict[str, AnswerRow], task: Task, metric: str | None, ours: str, theirs: str | None
) -> Question:
    first = next(iter(by.values()))
    score = {name: answer.scores.get(metric or "") for name, answer in by.items()}
    shown = [
        Shown(task.name_of(name), _short(answer.answer), "" if score[name] is None else number(score[name]))
        for name, answer in by.items()
    ]
    sign = -1 if task.metrics.get(metric or "") == "min" else 1
    change = _change(score.get(ours), score.get(theirs or ""), sign)
    return Question(
        row, _prompt(first), _short(first.reference) if first.reference is not None else None, shown, change
    )


def _change(ours: float | None, theirs: float | None, sign: int) -> Change:
    if ours is None or theirs is None or ours == theirs:
        return "same"
    return "better" if sign * (ours - theirs) > 0 else "worse"


def _prompt(answer: AnswerRow) -> str:
    if len(answer.prompt) == 1:
        return _short(answer.prompt[0].content)
    return _short("\n".join(f"{message.role}: {message.content}" for message in answer.prompt))


def _short(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]} … ({len(text) - TEXT:,} characters more)"


def _chosen(questions: list[Question], most: int) -> list[Question]:
    """At most so many: a third of each kind of change where there are as many, by their row."""
    waiting = [[question for question in questions if question.change == change] for change in ORDER]
    chosen = list(islice(_in_turn(waiting), most))
    return sorted(chosen, key=lambda question: (ORDER.index(question.change), question.row))


def _in_turn(queues: list[list[Question]]) -> Iterator[Question]:
    for place in range(max(map(len, queues))):
        yield from (queue[place] for queue in queues if place < len(queue))


def _confusions(task: Task, answers: list[AnswerRow]) -> Iterator[Table]:
    """A matrix a contender, of a task whose answers are labels."""
    if not set(BY_LABEL) & set(task.metrics):
        return
    labels = [label for label, _ in Counter(answer.reference for answer in answers if answer.reference).most_common()]
    for contender in dict.fromkeys(answer.contender for answer in answers):
        pairs = Counter(
            (answer.reference, label_of(answer.answer, labels) or NO_LABEL)
            for answer in answers
            if answer.contender == contender and answer.reference
        )
        yield confusion(f"What {task.name_of(contender)} wrote for each right label", pairs)


def confusion(caption: str, pairs: Counter[tuple[str, str]]) -> Table:
    """How often each (right label, written label) occurs: a row is a right label, a column a written one."""
    often: Counter[str] = Counter()
    for (right, _), amount in pairs.items():
        often[right] += amount
    kept = sorted(label for label, _ in often.most_common(LABELS))
    counts: Counter[tuple[str, str]] = Counter()
    for (right, wrote), amount in pairs.items():
        counts[_kept(right, kept), _kept(wrote, kept)] += amount
    rows = kept + [RARE] * (len(often) > LABELS)
    columns = rows + [NO_LABEL] * any(wrote == NO_LABEL for _, wrote in counts)
    lines = [Line([right, *(str(counts[right, wrote]) for wrote in columns)], "matrix") for right in rows]
    return Table(caption, ["Right label", *columns], lines, frozenset(range(1, len(columns) + 1)))


def _kept(label: str, kept: list[str]) -> str:
    return label if label in kept or label == NO_LABEL else RARE


def confusion_of_classifier(run: Run, board: Leaderboard) -> list[Table]:
    """The matrix that the best trial of a classifier has written into its manifest."""
    manifest = run.trial(board.best.trial).manifest if board.best else {}
    labels, matrix = manifest.get("labels"), manifest.get("confusion_matrix")
    if not labels or not isinstance(matrix, list):
        return []
    pairs = Counter(
        {
            (right, wrote): amount
            for right, row in zip(labels, matrix, strict=False)
            for wrote, amount in zip(labels, row, strict=False)
        }
    )
    return [confusion("What the best trial predicted for each right label", pairs)]
