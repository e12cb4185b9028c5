"""What stands before a question: instructions, examples that are not the test's, the passages that fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlib.config import DataSection, TaskSection
from ftlib.errors import InputError
from ftlib.evaluation.prompting import as_it_is, few_shot, rag, told
from ftlib.evaluation.task import Question
from tests.conftest import write_jsonl

ASKED = Question(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is the ferry?"}), "x")


def task(path: Path, rows: int) -> tuple[TaskSection, DataSection]:
    train = [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(rows)]
    test = write_jsonl(path / "test.jsonl", [{"prompt": "q0", "completion": "a0"}])
    section = TaskSection.model_validate({"name": "t", "data": str(test), "metrics": ["exact_match"]})
    return section, DataSection(train=str(write_jsonl(path / "train.jsonl", train)))


def test_examples_are_training_rows_that_are_not_asked(tmp_path: Path) -> None:
    section, data = task(tmp_path, 6)
    shown = few_shot(section, data, 5, seed=0)(ASKED).prompt
    assert [turn["role"] for turn in shown] == ["system", *["user", "assistant"] * 5, "user"]
    assert {turn["content"] for turn in shown if turn["role"] == "assistant"} == {f"a{n}" for n in range(1, 6)}
    assert shown == few_shot(section, data, 5, seed=0)(ASKED).prompt
    assert shown != few_shot(section, data, 5, seed=1)(ASKED).prompt
    with pytest.raises(InputError, match="that is not in the task too"):
        few_shot(*task(tmp_path, 1), 4, seed=0)


def test_passages_are_those_that_fit(tmp_path: Path) -> None:
    (tmp_path / "harbour.md").write_text("The ferry leaves from the north pier.\n\nThe bakery opens at six.")
    (tmp_path / "town.txt").write_text("The museum is closed on Mondays.\n\nThe library has two floors.")
    last = rag(tmp_path)(ASKED).prompt[-1]["content"]
    assert last.startswith("The ferry leaves from the north pier.")
    assert last.endswith("\n\nWhere is the ferry?")
    with pytest.raises(InputError, match="has no file"):
        rag(tmp_path / "nothing")


def test_instructions_join_the_system_message() -> None:
    first = told("Answer with JSON.", as_it_is)(ASKED).prompt[0]
    assert first == {"role": "system", "content": "Be brief.\n\nAnswer with JSON."}
    assert told(None, as_it_is)(ASKED) == ASKED
