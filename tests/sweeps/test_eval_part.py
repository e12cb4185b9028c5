"""The part of the held-out rows that trials are compared on: how large, which rows, and that it decides as all do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.tune.experiment import Trial

from ftlib.config import Experiment
from ftlib.data import prepare
from ftlib.errors import FtlibError
from ftlib.methods.table import PARTS, numbers_of
from ftlib.models.base import load_tokenizer
from ftlib.run.context import EvalPart
from ftlib.run.directory import Run
from ftlib.sweeps.asha import SuccessiveHalving
from ftlib.sweeps.eval_part import LEAST, Plan, eval_part, part_of, stratified
from ftlib.sweeps.rungs import why_never_stopped
from tests.conftest import rows, write_jsonl
from tests.training.test_estimate import REPORT

MANY = replace(REPORT, train_rows=320, train_tokens=3200, eval_rows=200)


def plan(tree: dict[str, Any], report: Any = MANY, questions: int = 0, **sweep: Any) -> Plan:
    tree["train"].update(num_train_epochs=1, per_device_train_batch_size=8, eval_strategy="steps", eval_steps=10)
    space = {"adapter.r": [2, 4]}
    tree["sweep"] = {"space": space, "scheduler": {"type": "none"}, "search": {"type": "random"}, **sweep}
    return Plan(Experiment.parse(tree), report, questions)


def test_a_part_costs_a_tenth_of_the_training_and_has_enough_rows(tree: dict[str, Any]) -> None:
    """40 steps of 8 rows, forward and backward, and 4 evaluations: a tenth of 640 passes over a row is 16 rows each."""
    assert LEAST == 2 * PARTS
    assert (plan(tree).times, plan(tree).rows) == (4, LEAST)
    assert plan(tree, replace(MANY, train_tokens=12_800)).rows == 64
    assert plan(tree).share == pytest.approx((4 * 32 + 200) / (4 * 32 + 200 + 640), abs=1e-3)
    assert plan(tree, eval_rows="all").share == pytest.approx(800 / 1440, abs=1e-3)
    asha = {"type": "asha", "min_eval_rows": 100, "first_rung": 0.25, "unit": "steps", "rungs": 1}
    assert plan(tree, scheduler=asha).rows == 100


def test_a_part_that_saves_nothing_is_all(tree: dict[str, Any]) -> None:
    assert plan(tree, replace(MANY, eval_rows=40)).rows is None  # 4 x 32 and 40 more are no less than 4 x 40
    assert plan(tree, replace(MANY, train_tokens=320_000)).rows is None
    once = plan(tree).experiment
    once = once.model_copy(update={"train": once.train.model_copy(update={"eval_strategy": "end"})})
    assert (Plan(once, MANY).times, Plan(once, MANY).rows) == (1, None)


def test_what_the_file_says_is_obeyed(tree: dict[str, Any]) -> None:
    assert plan(tree, eval_rows="all").rows is None
    assert (plan(tree, eval_rows=7).rows, plan(tree, questions=50, eval_rows=7).asked) == (7, 7)
    assert (plan(tree, eval_rows=500).rows, plan(tree, questions=5, eval_rows=7).asked) == (None, None)
    few = plan(tree, scheduler={"type": "asha"}, eval_rows=7).experiment
    assert "7 evaluation rows are too few to tell trials apart" in (why_never_stopped(few, MANY) or "")


def test_each_label_and_each_length_has_its_share() -> None:
    data = [("rare" if row % 10 == 0 else "often", row // 20) for row in range(200)]
    part = stratified(data, 40, "seed")
    assert len(set(part)) == 40
    assert part == stratified(data, 40, "seed") != stratified(data, 40, "other")
    assert Counter(data[row][0] for row in part) == {"often": 36, "rare": 4}
    assert np.mean([data[row][1] for row in part]) == pytest.approx(4.5, abs=0.3)
    free = stratified([(f"answer {row}", row % 50) for row in range(200)], 40, "seed")
    assert np.mean([row % 50 for row in free]) == pytest.approx(24.5, abs=1)
    assert stratified(data, 200, "seed") == tuple(range(200))


def test_a_resumed_run_keeps_the_part_that_it_began_with(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["data"]["train"] = str(write_jsonl(tmp_path / "rows.jsonl", rows(400)))
    experiment = plan(tree).experiment
    data = prepare(experiment.data, "answers", load_tokenizer(experiment.model))
    part = eval_part(experiment, data)
    assert part == eval_part(experiment, data)
    assert part.rows is not None
    assert len(part.rows) == LEAST
    answers = [tuple(data.eval[row]["labels"][-4:]) for row in range(len(data.eval))]
    shares, of_all = Counter(answers[row] for row in part.rows), Counter(answers)
    assert all(abs(shares[answer] - LEAST * count / len(answers)) <= 1 for answer, count in of_all.items())

    def run(told: Any) -> Run:
        return Run.create(tmp_path, "run", "", {} if told is None else {"eval_part": told})

    assert part_of(run({"rows": list(part.rows), "questions": None}), len(data.eval)) == part
    assert part_of(run(None), len(data.eval)) == EvalPart()
    for wrong in ({"rows": [len(data.eval)], "questions": None}, {"rows": [], "questions": None}, {"rows": 3}, [1]):
        with pytest.raises(FtlibError, match="eval_part names rows that are not there"):
            part_of(run(wrong), len(data.eval))


def test_a_near_tie_is_not_stopped_because_of_the_part() -> None:
    """Of 9 trials, 8 differ in truth by a thousandth of what a row's loss spreads, and the ninth is worse: on the part
    ASHA stops that one alone, in nearly all draws."""
    draw, stopped, caught = np.random.default_rng(0), 0, 0
    for _ in range(20):
        shared, own = draw.normal(1.0, 0.5, 400), draw.normal(0.0, 0.05, (9, 400))
        means = np.array([*np.linspace(0, 0.0005, 8), 0.2])
        losses = torch.tensor(shared + own + means[:, None])
        part = list(stratified([("", row) for row in range(400)], LEAST, "seed"))
        halving = SuccessiveHalving("step", (10,), 3, calls_back=False)
        halving.set_search_properties("eval_loss", "min")
        beaten = set()
        for number in range(9):
            table = {"loss": losses[number][part]}
            found = numbers_of(table, lambda some: {"loss": float(some["loss"].mean())}, "eval_loss")
            trial = Trial("name", trial_id=str(number), stub=True)
            if halving.on_trial_result(None, trial, {"step": 10, **found}) == "STOP":
                beaten.add(number)
        caught += 8 in beaten
        stopped += len(beaten - {8})
    assert caught == 20
    assert stopped <= 0.35 * 20 * 8
