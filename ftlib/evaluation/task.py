"""A task: questions with their right answers, read from a file of any format that trains with answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftlib.config import DataSection, TaskSection
from ftlib.data.fields import BadRow, Unweighted, printed
from ftlib.data.formats import COLUMNS, detect
from ftlib.data.prompts import READ, prompt_record
from ftlib.data.read import Row, columns_of, find_source, read_rows, shorten
from ftlib.data.render import plain, script_of
from ftlib.data.templates import without_opening
from ftlib.errors import DataError, nearest

Turn = dict[str, Any]  # {"role": ..., "content": ...}
MOST_ROWS = 100_000
TRIAL_ROWS = 100  # that trials answer at most, unless a task says how many


@dataclass(frozen=True)
class Question:
    """One row of a task. `prompt` is a chat up to the answer that is asked for."""

    prompt: tuple[Turn, ...]
    reference: str
    group: str | None = None  # what rows of one origin share


@dataclass(frozen=True)
class Answer:
    """What a model wrote. `seconds` are a URL's for this answer, or an equal part of what a batch took. `nll` is the
    negative log-likelihood of the reference's `nll_tokens`, where it was asked for. `sent` is the whole prompt, where
    examples, passages or instructions stood before the question."""

    text: str
    tokens: int = 0
    seconds: float = 0.0
    nll: float | None = None
    nll_tokens: int = 0
    sent: tuple[Turn, ...] | None = None


def read_questions(task: TaskSection, data: DataSection, key: str | None = None, scored: bool = True) -> list[Question]:
    """The rows of a task's data, read by the keys of `data` (format, columns) where they fit, else by their own shape.

    `key` is what messages call the data; None is the key of the task. Where answers are not `scored`, rows need no
    right answer. Raises DataError for what is not there, for a row without an answer that needs one, and for a column
    `group` that is not there.
    """
    key = key or f"evaluation.tasks.{task.name}.data"
    section = data.model_copy(
        update={"train": task.data, "eval": None, "ignore_columns": [], "max_rows": task.limit or MOST_ROWS}
    )
    try:
        source = find_source("train", section)
        rows = read_rows(source, _fitting(section, columns_of(source.rows(header=True))))
    except DataError as error:
        raise DataError(str(error).replace("data.train", key)) from None
    columns = columns_of(rows)
    if task.group is not None and task.group not in columns:
        raise DataError(f"{key}: it has no column '{task.group}' for group.{nearest(task.group, columns)}")
    name = _format(section.format, columns, f"{key}: {source.name}")
    return [_question(row, name, task, scored) for row in rows]


def _fitting(section: DataSection, there: Sequence[str]) -> DataSection:
    """Without the names of columns that this file does not have: another file than the training rows'."""
    fits = {ours: theirs for ours, theirs in section.columns.items() if theirs in there or theirs.isdecimal()}
    return section.model_copy(update={"columns": fits})


def _format(wanted: str, columns: Sequence[str], name: str) -> str:
    fits = wanted != "auto" and any(set(needed) <= set(columns) for needed in COLUMNS[wanted])
    found = detect(wanted if fits else "auto", columns, name)
    if found not in READ and found != "classification":
        listed = ", ".join(map(shorten, columns))
        raise DataError(f"{name} holds {found} rows, which have no question and answer. Its columns are {listed}.")
    return found


def _question(row: Row, name: str, task: TaskSection, scored: bool) -> Question:
    try:
        if row.problem:
            raise BadRow(row.problem)
        prompt, reference = _read(name, row.fields)
    except (BadRow, Unweighted) as bad:
        raise DataError(f"{row.where}: {bad or 'it says that it is not to be used'}. A task needs each row.") from None
    if scored and not reference:
        raise DataError(f"{row.where}: it has no right answer, and a task needs one for each row.")
    system = [{"role": "system", "content": task.system}] if task.system else []
    group = None if task.group is None else printed(row.fields[task.group])
    return Question((*system, *prompt), reference, group)


def _read(name: str, fields: dict[str, Any]) -> tuple[list[Turn], str]:
    if name == "classification":
        return [{"role": "user", "content": str(fields["text"])}], printed(fields["label"])
    record = prompt_record(name, fields)
    return record["prompt"], record["answer"]


def verdict_rows(task: TaskSection, data: DataSection, metrics: Sequence[str]) -> list[Question]:
    """The questions that a verdict is on: all, or where trials were judged by one of `metrics`, of this task, those
    that no trial has answered."""
    return of_verdict(read_questions(task, data), task, metrics)


def of_verdict(questions: list[Question], task: TaskSection, metrics: Sequence[str]) -> list[Question]:
    """Those of a task's questions that a verdict is on."""
    answered = any(metric.startswith(f"{task.name}/") for metric in metrics)
    return parted(questions, task)[1] if answered else questions


def parted(questions: Sequence[Question], task: TaskSection) -> tuple[list[Question], list[Question]]:
    """The questions that trials are compared on, and those that the verdict is on: other rows, and other groups.

    Evenly spread over the file, so that both have something of each part of it. Raises DataError where one of the two
    would be empty.
    """
    wanted = task.trial_rows or min(TRIAL_ROWS, len(questions) // 2)
    if not 0 < wanted < len(questions):
        raise DataError(
            f"evaluation.tasks.{task.name}: it has {len(questions)} rows. Trials answer {wanted} of them, and the "
            "verdict needs others: give it more rows, or set trial_rows."
        )
    units: dict[object, list[int]] = {}
    for row, question in enumerate(questions):
        units.setdefault(row if question.group is None else question.group, []).append(row)
    every, chosen, taken = len(questions) / wanted, set[int](), 0
    for rows in units.values():
        if taken <= rows[0] / every and len(chosen) < wanted:
            chosen.update(rows)
            taken += len(rows)
    if len(chosen) == len(questions):
        raise DataError(f"evaluation.tasks.{task.name}: all its rows are of one group: the verdict needs others.")
    some = [question for row, question in enumerate(questions) if row in chosen]
    return some, [question for row, question in enumerate(questions) if row not in chosen]


def digest(questions: Sequence[Question]) -> str:
    """A hash of the questions and answers, so that two results can be said to be of the same rows."""
    rows = [[list(question.prompt), question.reference, question.group] for question in questions]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]


def written(prompt: Sequence[Turn], tokenizer: Any, template: str | None) -> str:
    """A prompt as a model reads it, as training writes it. Raises DataError where the template cannot take it.

    Without a template, a question alone is its text. Several turns are their texts, with a blank line after each.
    """
    record: dict[str, Any] = {"prompt": list(prompt)}
    try:
        if template is None:
            return without_opening(_without_template(prompt, record), tokenizer)
        script = script_of(list(prompt), record, tokenizer, template)
        script.check()
        return script.write(script.turns, asks=True)
    except BadRow as bad:
        raise DataError(f"a question cannot be written for the model: {bad}.") from None


def ends_at_blank_line(prompt: Sequence[Turn], template: str | None) -> bool:
    """Whether the answer to a prompt ends at its first blank line: so ends each turn of the prompt itself."""
    return template is None and len(prompt) > 1


def _without_template(prompt: Sequence[Turn], record: dict[str, Any]) -> str:
    texts = [plain([turn], record, (turn["role"],))[0] for turn in prompt]
    return texts[0] if len(texts) == 1 else "".join(f"{text}\n\n" for text in texts)
