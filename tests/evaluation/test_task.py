"""The questions of a task, from files of each format; what a task cannot use is said with file and line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import DataSection, TaskSection
from ftlib.errors import DataError
from ftlib.evaluation.task import Question, digest, parted, read_questions
from tests.conftest import write_jsonl


def read(path: Path, rows: list[Any], data: dict[str, Any] | None = None, **task: Any) -> list[Question]:
    file = write_jsonl(path / "test.jsonl", rows)
    section = TaskSection.model_validate({"name": "t", "data": str(file), "metrics": ["exact_match"], **task})
    return read_questions(section, DataSection.model_validate({"train": str(file), **(data or {})}))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi?", "completion": "Yes."},
        {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]},
        {"instruction": "Hi?", "output": "Yes."},
        {"prompt": "Hi?", "answer": "Yes."},
        {"text": "Hi?", "label": "Yes."},
    ],
)
def test_formats(row: dict[str, Any], tmp_path: Path) -> None:
    assert read(tmp_path, [row]) == [Question(({"role": "user", "content": "Hi?"},), "Yes.")]


def test_columns_of_the_training_rows_hold_where_they_fit(tmp_path: Path) -> None:
    columns = {"columns": {"prompt": "ask", "completion": "say"}}
    (question,) = read(tmp_path, [{"ask": "Hi?", "say": "Yes."}], columns)
    assert question.reference == "Yes."
    assert read(tmp_path, [{"prompt": "Hi?", "completion": "Yes."}], columns) == [question]


def test_groups_a_system_message_and_a_limit(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "completion": "x", "document": n // 2} for n in range(5)]
    found = read(tmp_path, rows, group="document", system="Be brief.", limit=4)
    assert [question.group for question in found] == ["0", "0", "1", "1"]
    assert found[0].prompt[0] == {"role": "system", "content": "Be brief."}
    assert digest(found) != digest(found[:3])


@pytest.mark.parametrize(
    ("rows", "task", "message"),
    [
        ([{"prompt": "Hi?", "completion": "Yes."}, {"prompt": "Hi?"}], {}, "test.jsonl.*2.*A task needs each row"),
        ([{"prompt": "Hi?"}], {}, "no right answer"),
        ([{"prompt": "Hi?", "completion": "x"}], {"group": "documnt"}, "no column 'documnt'"),
        ([{"text": "Hi?"}], {}, "no question and answer"),
        ([{"a": 1}], {}, "evaluation.tasks.t.data: .*test.jsonl: its columns"),
    ],
)
def test_what_cannot_be_used_is_said(rows: list[Any], task: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"(?s){message}"):
        read(tmp_path, rows, **task)


def test_a_file_that_is_not_there_is_called_by_its_key() -> None:
    section = TaskSection.model_validate({"name": "t", "data": "gone.jsonl", "metrics": ["exact_match"]})
    with pytest.raises(DataError, match="evaluation.tasks.t.data"):
        read_questions(section, DataSection(train="x.jsonl"))


@pytest.mark.parametrize(("count", "asked", "trials"), [(10, None, 5), (10, 3, 3), (300, None, 100), (7, 2, 2)])
def test_the_verdict_is_on_rows_that_no_trial_has_answered(
    count: int, asked: int | None, trials: int, tmp_path: Path
) -> None:
    rows = [{"prompt": f"{n}?", "completion": "x"} for n in range(count)]
    questions = read(tmp_path, rows)
    task = TaskSection.model_validate({"name": "t", "data": "x", "metrics": ["exact_match"], "trial_rows": asked})
    some, others = parted(questions, task)
    assert len(some) == trials
    assert sorted(some + others, key=str) == sorted(questions, key=str)
    places = [questions.index(question) for question in some]
    assert max(after - before for before, after in pairwise(places)) <= count / trials + 1


def test_a_group_is_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "completion": "x", "document": n % 4} for n in range(12)]
    task = TaskSection.model_validate({"name": "t", "data": "x", "metrics": ["exact_match"]})
    some, others = parted(read(tmp_path, rows, group="document"), task)
    assert {question.group for question in some}.isdisjoint({question.group for question in others})
    with pytest.raises(DataError, match="of one group"):
        parted(read(tmp_path, [{**row, "document": 1} for row in rows], group="document"), task)


@pytest.mark.parametrize("trial_rows", [None, 5])
def test_one_side_may_not_be_empty(trial_rows: int | None, tmp_path: Path) -> None:
    count = 1 if trial_rows is None else 5
    keys = {"name": "t", "data": "x", "metrics": ["exact_match"], "trial_rows": trial_rows}
    questions = read(tmp_path, [{"prompt": f"{n}?", "completion": "x"} for n in range(count)])
    with pytest.raises(DataError, match="set trial_rows"):
        parted(questions, TaskSection.model_validate(keys))
