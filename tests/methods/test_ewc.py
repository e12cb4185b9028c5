"""EWC: the Fisher information by hand, the penalty by hand, and what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftlib.config import Experiment
from ftlib.data import prepare
from ftlib.errors import ConfigError, DataError
from ftlib.methods import check, sft
from ftlib.methods.ewc import old_rows
from ftlib.models.adapters.build import add_adapter
from ftlib.models.base import load_model, load_tokenizer
from ftlib.run.directory import Run
from tests.conftest import rows, write_jsonl
from tests.training.test_trial import losses, setting, train


@pytest.fixture
def held(tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A little training, on rows that are not the old ones."""
    old = [{**row, "completion": "It is a colour."} for row in rows(6)]
    tree["method"] = {"type": "sft", "ewc": {"weight": 1.0, "data": str(write_jsonl(tmp_path / "old.jsonl", old))}}
    tree["train"] |= {"max_steps": 4, "logging_steps": 1}
    return tree


def built(tree: dict[str, Any], tmp_path: Path) -> Any:
    """The trainer of SFT, as a trial has it."""
    experiment = Experiment.parse(tree)
    tokenizer = load_tokenizer(experiment.model)
    data = prepare(experiment.data, "answers", tokenizer)
    model = add_adapter(load_model(experiment.model), experiment.adapter)
    return sft.trainer(experiment, model, tokenizer, data, tmp_path / "out")


@pytest.mark.parametrize("adapter", [None, {"type": "lora", "r": 4, "target_modules": ["q_proj"]}])
def test_the_penalty_is_the_papers(adapter: Any, held: dict[str, Any], base: Path, tmp_path: Path) -> None:
    """By hand: squared gradients of each old row, and the way of each weight from the base."""
    held["adapter"] = adapter
    trainer = built(held, tmp_path)
    experiment = Experiment.parse(held)
    plain = AutoModelForCausalLM.from_pretrained(base)
    chosen = {name: part for name, part in plain.named_parameters() if adapter is None or "q_proj" in name}
    fisher = {name: torch.zeros_like(part) for name, part in chosen.items()}
    old = old_rows(experiment, load_tokenizer(experiment.model)).train
    for row in old:
        logits = plain(torch.tensor([row["input_ids"]])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row["labels"][1:]))  # -100 is left out
        for name, grad in zip(chosen, torch.autograd.grad(loss, list(chosen.values())), strict=True):
            fisher[name] += grad.square() / len(old)
    penalty = trainer.look()
    torch.manual_seed(0)
    for part in trainer.model.parameters():
        if part.requires_grad:
            part.data += 0.01 * torch.randn_like(part)
    found = float(penalty().detach())
    now = dict((trainer.model.merge_and_unload() if adapter else trainer.model).named_parameters())
    expected = sum((fisher[name] * (now[name] - part).square()).sum() for name, part in chosen.items()) / 2
    assert found == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize("adapter", [None, {"type": "lora", "r": 4}])
def test_what_is_held_moves_less(adapter: Any, held: dict[str, Any], tmp_path: Path) -> None:
    """The same steps with a weight of nearly nothing, and of much. `loss` is without the penalty."""
    held["adapter"], found = adapter, {}
    held["train"] |= {"max_steps": 12, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    for weight in (1e-9, 1e4):
        held["method"]["ewc"]["weight"] = weight
        done = setting(held, tmp_path / str(weight))
        train(done)
        logged = [row for row in Run(Path(done.run)).trial("000").metrics() if "loss" in row]
        found[weight] = sum(row["ewc_penalty"] for row in logged) / weight, losses(done)
        manifest = Run(Path(done.run)).trial("000").manifest
        assert manifest["ewc"] == {"rows": 6}
    (loose, free), (tight, bound) = found[1e-9], found[1e4]
    assert tight < loose / 10
    assert free[0][1] == pytest.approx(bound[0][1], rel=1e-5)  # before the first step, nothing has moved


def test_without_a_penalty_to_speak_of_it_is_sft(held: dict[str, Any], tmp_path: Path) -> None:
    """To compute the Fisher information changes nothing of the model."""
    held["method"]["ewc"]["weight"] = 1e-30
    ours, plain = setting(held, tmp_path / "ours"), {**held, "method": {"type": "sft"}, "scale": {"engine": "trainer"}}
    train(ours)
    theirs = setting(plain, tmp_path / "theirs")
    train(theirs)
    assert [loss for _, loss in losses(ours)] == pytest.approx([loss for _, loss in losses(theirs)], abs=1e-9)


@pytest.mark.parametrize("keys", [{"use_dora": True}, {"init_lora_weights": "pissa"}])
def test_a_lora_that_is_not_plain_is_refused(keys: dict[str, Any], held: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="method.ewc: it holds weights of the base near where they were"):
        Experiment.parse({**held, "adapter": {"type": "lora", **keys}})


def test_old_rows_that_are_not_there_are_refused(held: dict[str, Any], tmp_path: Path) -> None:
    held["method"]["ewc"]["data"] = str(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"method.ewc.data: .*gone\.jsonl"):
        check(Experiment.parse(held))
