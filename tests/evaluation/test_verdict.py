"""The sentence that a person wants: what is said of a gain, a tie, a loss, groups and seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ftlib.config import DataSection, EvaluationSection
from ftlib.errors import InputError
from ftlib.evaluation.results import Contender, Results, TaskResult, best_rival, do_tasks
from ftlib.evaluation.task import Answer, Question
from ftlib.evaluation.verdict import is_gain, is_loss, verdict

RIGHT = {"base": 15, "few_shot": 82, "winner": 167}


def contender(name: str, right: int) -> Contender:
    def answer(task: Any, questions: Any) -> list[Answer]:
        return [Answer("yes" if row < right else "no", 3, 0.5) for row in range(len(questions))]

    return Contender(name, name.title(), answer)


def evaluated(rows: int = 200, group: bool = False, **tasks: dict[str, int]) -> dict[str, Any]:
    """evaluation.json of tasks in which each contender is right so often; `kept` is a regression task."""
    results = Results([])
    for name, right in tasks.items():
        task = {"name": name, "data": "x", "metrics": ["exact_match"], "group": "document" if group else None,
                "role": "regression" if name == "kept" else "target"}  # fmt: skip
        section = EvaluationSection.model_validate({"tasks": [task]}).tasks[0]
        questions = [Question(({"role": "user", "content": str(row)},), "yes", str(row // 4)) for row in range(rows)]
        results.tasks.append(TaskResult(section, questions, 0))
        for who, count in right.items():
            results.tasks[-1].add(contender(who, count))
    return results.to_dict("winner")


def test_a_gain_beyond_chance() -> None:
    found = evaluated(tickets=RIGHT)
    assert verdict(found) == "tickets: 83.5 % (77.7 to 88.0), few-shot base 41.0 %, p < 0.001 on 200 rows"
    assert (
        best_rival(found["tickets"] if "tickets" in found else found["tasks"]["tickets"], "exact_match", "winner")
        == "few_shot"
    )
    assert all(is_gain(one) for one in found["tasks"]["tickets"]["comparisons"])
    assert found["tasks"]["tickets"]["contenders"]["winner"]["seconds_per_answer"] == 0.5
    assert found["tasks"]["tickets"]["contenders"]["winner"]["tokens_per_second"] == 6


def test_no_gain_beyond_chance() -> None:
    said = verdict(evaluated(tickets={"base": 165, "winner": 167}))
    assert said.endswith("base 82.5 %, p = 0.50 on 200 rows, no difference beyond chance")


def test_what_was_forgotten_is_said() -> None:
    found = evaluated(tickets=RIGHT, kept={"base": 150, "winner": 90})
    assert verdict(found).endswith("; kept: 45.0 %, base 75.0 %, a loss beyond chance (p < 0.001)")
    assert is_loss(found["tasks"]["kept"]["comparisons"][0])
    assert verdict(evaluated(kept={"base": 105, "winner": 104})).endswith(", no loss beyond chance")


def test_groups_are_the_units() -> None:
    found = evaluated(group=True, tickets=RIGHT)
    assert found["tasks"]["tickets"]["units"] == 50
    assert "on 50 groups of 200 rows" in verdict(found)


def test_seeds() -> None:
    found = evaluated(tickets={**RIGHT, "seed 43": 160})
    seeds = {"metric": "tickets/exact_match", "values": {"42": 0.835, "43": 0.8}, "mean": 0.8175, "std": 0.025}
    assert verdict({**found, "seeds": {**seeds, "lucky": False}}).endswith("on 200 rows; 2 seeds ± 2.5")
    assert verdict({**found, "seeds": {**seeds, "lucky": True}}).endswith("the winner's own seed was a lucky one")
    assert "few-shot base 41.0 %" in verdict({**found, "seeds": seeds})  # a replica is no rival


def test_who_fails_is_said_and_the_others_go_on(tmp_path: Any) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"prompt": "a", "completion": "yes"}\n' * 3)
    section = EvaluationSection.model_validate(
        {"tasks": [{"name": "t", "data": str(file), "metrics": ["exact_match"]}]}
    )

    def gone() -> Contender:
        raise InputError("there is no such model.")

    found = do_tasks(section, DataSection(train=str(file)), [gone, lambda: contender("winner", 2)])
    assert found.failed == ["there is no such model."]
    assert found.tasks[0].scores["winner"]["exact_match"].number() == pytest.approx(2 / 3)
    assert np.isfinite(found.seconds)
    assert [line.count('"contender": "winner"') for line in found.lines()] == [1, 1, 1]
