"""A model of this process as a teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlib.config.recipe.making import GenerateStep
from ftlib.config.recipe.teacher import TeacherSection
from ftlib.curate.teachers import loaded as module
from ftlib.curate.teachers.answering import answered
from ftlib.curate.teachers.purse import Purse
from ftlib.curate.teachers.request import Answered, Missing, Reply, Request
from ftlib.errors import ConfigError
from tests.curate.conftest import as_rows
from tests.curate.steps.test_steps import applied


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))


def asked(base: Path, count: int, temperature: float, purse: Purse | None = None) -> list[Answered]:
    teacher = TeacherSection(model=str(base))
    turns = [({"role": "user", "content": f"row {number}"},) for number in range(count)]
    requests = [Request(teacher, one, 8, temperature, seed) for seed, one in enumerate(turns)]
    return answered(teacher, requests, purse or Purse())


def test_it_writes_within_the_budget_and_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Loaded, "lot", 4)
    found = asked(base, 6, 1.0)
    replies = [one for one in found if isinstance(one, Reply)]
    assert len(replies) == 6
    assert all(0 < one.written <= 8 and one.read > 0 for one in replies)
    assert any(one.cut for one in replies)
    purse = Purse(tokens=150)
    less = asked(base, 6, 0.0, purse)
    assert 0 < sum(isinstance(one, Reply) for one in less) < 6
    assert isinstance(less[-1], Missing)
    assert purse.spent[0] <= 150
    module._loaded.cache_clear()
    monkeypatch.setattr(module.Loaded, "_load", lambda self: pytest.fail("what is kept needs no model"))
    assert asked(base, 6, 1.0) == found


def test_a_step_takes_a_folder(base: Path) -> None:
    rows = as_rows(*({"prompt": f"{number}?"} for number in range(3)))
    result = applied("generate", rows, GenerateStep.model_validate({"kind": "answers", "teacher": str(base)}))
    assert len(result.kept) + len(result.dropped) == 3


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"teacher.*no-such-folder"):
        answered(
            TeacherSection(model="./no-such-folder"),
            [Request(TeacherSection(model="./no-such-folder"), ({"role": "user", "content": "x"},), 8)],
            Purse(),
        )
