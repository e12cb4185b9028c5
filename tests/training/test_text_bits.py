"""Bits per byte: the loss of a text whatever its tokens are, and trials on other bases compared by it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.data import load_prepared, prepare
from ftlib.errors import TrialError
from ftlib.models.base import load_tokenizer
from ftlib.training.text_bits import bits_of_a_loss, check_same_texts
from tests.training.test_trial import setting, train


@pytest.fixture
def other_base(base: Path, tmp_path: Path) -> Path:
    """The same base with a tokenizer that merges less: the same texts in more tokens."""
    folder = Path(shutil.copytree(base, tmp_path / "other"))
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text())
    told["model"]["merges"] = told["model"]["merges"][:20]
    file.write_text(json.dumps(told))
    return folder


def rows_of(tree: dict[str, Any], base: Path) -> tuple[Any, Any]:
    experiment = Experiment.parse({**tree, "model": {"name_or_path": str(base)}})
    tokenizer = load_tokenizer(experiment.model)
    return prepare(experiment.data, "answers", tokenizer).eval, tokenizer


def test_the_same_likelihood_of_a_text_is_the_same_number_of_bits(
    tree: dict[str, Any], base: Path, other_base: Path
) -> None:
    ours, theirs = rows_of(tree, base), rows_of(tree, other_base)
    tokens = [sum(label != -100 for row in rows["labels"] for label in row) for rows, _ in (ours, theirs)]
    assert tokens[0] < tokens[1]
    nats = 100.0  # of all texts together
    assert nats / tokens[0] * bits_of_a_loss(*ours) == pytest.approx(nats / tokens[1] * bits_of_a_loss(*theirs))
    check_same_texts(*ours, *theirs)
    some = [0, 1]
    assert bits_of_a_loss(*ours, some) == pytest.approx(bits_of_a_loss(ours[0].select(some), ours[1]))
    with pytest.raises(TrialError, match="raise data.max_length"):
        check_same_texts(*ours, theirs[0].map(lambda row: {"labels": row["labels"][:-4]}), theirs[1])  # cut


def test_a_trial_on_another_base_is_judged_by_texts_tasks_and_measures(
    tree: dict[str, Any], other_base: Path, data_file: Path, tmp_path: Path
) -> None:
    task = {"name": "t", "data": str(data_file), "metrics": ["exact_match"], "max_new_tokens": 4, "limit": 4}
    tree["evaluation"] = {"tasks": [task]}
    judged = ("t/exact_match", "latency_ms", "trainable_parameters")
    shared = setting(tree, tmp_path, metric="eval_bits_per_byte", judged_by=judged)
    last = train(shared, params={"model.name_or_path": str(other_base)})[-1]
    eval_rows, tokenizer = rows_of(tree, other_base)
    assert last["eval_bits_per_byte"] == pytest.approx(last["eval_loss"] * bits_of_a_loss(eval_rows, tokenizer))
    assert math.isfinite(last["latency_ms"])
    assert last["latency_ms"] > 0
    assert last["trainable_parameters"] > 0
    assert 0 <= last["t/exact_match"] <= 1
    assert load_prepared(Path(shared.data)).eval.to_dict() != eval_rows.to_dict()
