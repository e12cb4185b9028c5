"""The estimate counts steps and tokens as the trainer does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.data import DataReport, Lengths, prepare
from ftlib.models.base import load_tokenizer
from ftlib.training.estimate import budget, estimate, steps_and_tokens
from tests.training.test_trial import setting, train


@pytest.mark.parametrize(
    "change",
    [{}, {"num_train_epochs": 2.5}, {"gradient_accumulation_steps": 3}, {"max_steps": 5}, {"max_steps": 20}],
    ids=str,
)
def test_steps_are_those_of_the_trainer(change: dict[str, Any], tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(change)
    experiment = Experiment.parse(tree)
    data = prepare(experiment.data, "answers", load_tokenizer(experiment.model))
    steps, tokens = steps_and_tokens(experiment, data.report)
    last = train(setting(tree, tmp_path))[-1]
    assert steps == last["step"]
    assert tokens == pytest.approx(last["tokens"], rel=0.1)


REPORT = DataReport(
    rows="answers",
    format="text",
    template="none",
    max_length=64,
    rows_read=100,
    skipped=0,
    skipped_rows=(),
    truncated=0,
    dropped=0,
    train_rows=100,
    eval_rows=10,
    train_tokens=1000,
    trained_tokens=500,
    lengths=Lengths(1, 10.0, 10, 20, 30),
)


def test_the_budget_is_that_of_the_shortest_trial(tree: dict[str, Any]) -> None:
    tree["train"].update(max_steps=10, per_device_train_batch_size=10)
    tree["sweep"] = {"space": {"train.per_device_train_batch_size": [5, 10, 20], "adapter.r": [2, 4]}}
    assert budget(Experiment.parse(tree), REPORT) == (500, 10)


def test_longer_rows_and_more_trained_weights_take_more_memory(tree: dict[str, Any]) -> None:
    lora = estimate(Experiment.parse(tree), REPORT)
    full = estimate(Experiment.parse({**tree, "adapter": None}), REPORT)
    long = estimate(Experiment.parse(tree), replace(REPORT, lengths=Lengths(1, 10.0, 10, 20, 60)))
    assert lora.trainable_parameters < lora.total_parameters
    assert full.trainable_parameters == full.total_parameters
    assert lora.memory_gib < full.memory_gib
    assert lora.memory_gib < long.memory_gib


def test_what_is_sharded_or_quantized_or_frozen_takes_less(tree: dict[str, Any]) -> None:
    def memory(**parts: Any) -> float:
        return estimate(Experiment.parse({**tree, "adapter": None, **parts}), REPORT).memory_gib

    zero = [memory(scale={"strategy": "deepspeed", "num_workers": 4, "stage": stage}) for stage in (1, 2, 3)]
    assert memory() > zero[0] > zero[1] > zero[2]
    assert memory(scale={"strategy": "fsdp", "num_workers": 4}) == pytest.approx(zero[2])
    model = {**tree["model"], "quantization": "nf4"}
    assert memory(adapter=tree["adapter"]) > memory(adapter=tree["adapter"], model=model)


def test_a_frozen_encoder_is_not_trained(tree: dict[str, Any]) -> None:
    tree.update(adapter=None, method={"type": "classify", "freeze": "encoder"})
    assert estimate(Experiment.parse(tree), REPORT).trainable_parameters == 2 * 32  # a head of two classes
