"""Trials that are evaluated on a part of the rows until their end: packed = solo, resumed = uninterrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ftlib.methods.pack_losses import objective
from ftlib.run.context import EvalPart, Setting
from ftlib.run.directory import ALL_ROWS, Run
from ftlib.run.leaderboard import leaderboard
from tests.conftest import rows, write_jsonl
from tests.training.test_trial import setting
from tests.training.test_trial import train as train_alone

from .conftest import assert_same_bits, left_behind, losses, pack_of, train, trial

PART = EvalPart(rows=(0, 3, 4))
POINTS = {"000": {"adapter.r": 4}, "001": {"adapter.r": 2, "train.learning_rate": 2e-2}}
KEPT = {"min": 16, "max": 8}  # the step whose weights are kept: the loss falls


def parted(made: Setting, folder: Path) -> Setting:
    """The same experiment in a run of its own, with a part."""
    resolved = {"experiment": made.resolved, "objective": ["eval_loss", made.mode], "data": {"eval_rows": 16}}
    run = Run.create(folder, "run", "", {**resolved, "eval_part": {"rows": list(PART.rows or ()), "questions": None}})
    run.trial("000").path.mkdir()
    return replace(made, run=str(run.path), part=PART)


@pytest.fixture(params=["min", "max"])
def wanted(made: Setting, request: pytest.FixtureRequest) -> Setting:
    """Where the highest loss is the best, trials keep their first weights, and not their last."""
    return replace(made, mode=request.param)


@pytest.fixture
def packed(wanted: Setting, tmp_path: Path) -> Setting:
    """Two trials of a pack."""
    done = parted(wanted, tmp_path / "packed")
    assert train(pack_of(done), POINTS) == {}
    return done


def test_packed_is_solo_at_rungs_and_at_the_end(packed: Setting, wanted: Setting, tmp_path: Path) -> None:
    alone = parted(wanted, tmp_path / "alone")
    for name, point in POINTS.items():
        reports = train_alone(alone, name, point)
        assert [ALL_ROWS in report for report in reports] == [False] * 3
        ours, theirs = trial(packed, name), trial(alone, name)
        assert [(row["step"], ALL_ROWS in row) for row in ours.metrics() if "loss" not in row] == [
            (8, False), (16, False), (16, True)]  # fmt: skip
        assert losses(ours, "eval_loss") == pytest.approx(losses(theirs, "eval_loss"), rel=1e-4)
        whole, same = ours.on_all_rows, theirs.on_all_rows
        assert whole is not None
        assert same is not None
        assert whole["eval_loss"] == pytest.approx(same["eval_loss"], rel=1e-4)
        assert len(whole["eval_loss_parts"]) == 16 > len(ours.evaluations("eval_loss")[0]["eval_loss_parts"]) == 3
        assert ours.manifest["metrics"]["eval_loss"] == whole["eval_loss"] != losses(ours, "eval_loss")[-1]
        assert whole["step"] == same["step"] == ours.manifest["step"] == theirs.manifest["step"] == KEPT[packed.mode]


def test_all_rows_are_those_of_the_kept_weights(packed: Setting, wanted: Setting) -> None:
    """On all rows as an evaluation of a trial without a part has them, at the step whose weights are kept."""
    assert train(pack_of(wanted), POINTS) == {}
    for name in POINTS:
        whole = trial(packed, name).on_all_rows
        assert whole is not None
        assert whole["eval_loss"] == losses(trial(wanted, name), "eval_loss")[whole["step"] // 8 - 1]
        assert losses(trial(packed, name), "loss") == losses(trial(wanted, name), "loss")


def test_resumed_is_uninterrupted(packed: Setting, wanted: Setting, tmp_path: Path) -> None:
    again = parted(wanted, tmp_path / "again")
    cut = pack_of(again)
    for name, point in POINTS.items():
        cut.join(name, point, lambda row: None)
    for _ in range(11):
        cut.tick()
    assert train(pack_of(again), POINTS) == {}
    for name in POINTS:
        assert_same_bits(left_behind(trial(again, name)), left_behind(trial(packed, name)))
        first, second = trial(again, name).on_all_rows, trial(packed, name).on_all_rows
        assert first is not None
        assert second is not None
        assert {**first, "eval_runtime": 0} == {**second, "eval_runtime": 0}


def test_a_trial_that_died_before_its_closing_evaluation_makes_it(packed: Setting) -> None:
    ours = trial(packed, "001")
    lines = ours.metrics_path.read_text().splitlines(keepends=True)
    assert ours.weights is not None
    kept = load_file(ours.weights / "adapter_model.safetensors")
    whole = ours.on_all_rows
    assert whole is not None
    ours.metrics_path.write_text("".join(lines[:-1]))
    assert train(pack_of(packed), {"001": POINTS["001"]}) == {}
    again = ours.on_all_rows
    assert again is not None
    assert again["eval_loss"] == whole["eval_loss"]
    now = load_file(ours.weights / "adapter_model.safetensors")
    assert all((tensor == kept[name]).all() for name, tensor in now.items())
    assert len(losses(ours)) == 16


def test_the_base_has_both_and_gains_compare_like_with_like(packed: Setting) -> None:
    pack, run = pack_of(packed), Run(Path(packed.run))
    pack.evaluate_base(lambda: objective(packed.experiment(), pack.base.data, pack.base))
    for name in POINTS:
        run.trial(name).set_state("finished")
    board = leaderboard(run)
    assert board.base is not None
    row = board.rows[0]
    assert (board.part_rows, board.eval_rows) == (3, 16)
    assert board.base.value != board.base.all_rows
    assert board.base.all_rows is not None
    assert row.all_rows is not None
    better = board.base.all_rows - row.all_rows if packed.mode == "min" else row.all_rows - board.base.all_rows
    # Percent of a loss; of other numbers that should be high, the plain difference.
    assert row.gain == pytest.approx(100 * better / board.base.all_rows if packed.mode == "min" else better)


def test_a_task_is_answered_in_part(tree: dict[str, Any], tmp_path: Path) -> None:
    metric, file = "colours/exact_match", write_jsonl(tmp_path / "test.jsonl", rows(13))
    task = {"name": "colours", "data": str(file), "metrics": ["exact_match"], "max_new_tokens": 4}
    tree["evaluation"] = {"tasks": [task]}
    tree["train"].update(max_steps=8, logging_steps=4, eval_strategy="steps", eval_steps=4)
    tree["sweep"] = {"space": {"train.learning_rate": [1e-2]}, "search": {"type": "grid"}, "metric": metric}
    part = EvalPart(questions=(1, 4))
    one, packed = (setting(tree, tmp_path / name, metric=metric, mode="max", part=part) for name in ("one", "pack"))
    train_alone(one)
    assert train(pack_of(packed), {"000": {}}) == {}
    for found in (trial(one, "000"), trial(packed, "000")):
        whole = found.on_all_rows
        assert whole is not None
        assert (len(found.evaluations(metric)[0][f"{metric}_parts"]), len(whole[f"{metric}_parts"])) == (2, 6)
    assert losses(trial(one, "000"), metric) == losses(trial(packed, "000"), metric)
