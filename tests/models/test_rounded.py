"""Quantization-aware training: a trial computes with the weights that its export will have."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, TorchAoConfig

from ftlib.config import Experiment
from ftlib.errors import ConfigError
from ftlib.models.rounded import RoundedLinear, check_rounding, round_weights, rounded, torchao_config
from ftlib.run.directory import Run
from tests.training.test_trial import setting, train

IDS = torch.arange(5, 29).reshape(2, 12)
LORA = {"type": "lora", "r": 4, "target_modules": ["q_proj", "up_proj"]}


def test_a_lora_that_is_no_sum_is_refused(tree: dict[str, Any]) -> None:
    for keys in ({"use_dora": True}, {"lora_dropout": 0.1}):
        with pytest.raises(ConfigError, match="here there is no such sum"):
            Experiment.parse({**tree, "train": {"qat": "int4"}, "adapter": {**LORA, **keys}})


def test_without_torchao_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'ftlib[quantize]'")):
        check_rounding(nn.Sequential(nn.Linear(2, 2)), "int8")


class TestWithTorchao:
    """What needs the extra `quantize`."""

    pytestmark = pytest.mark.filterwarnings("ignore")  # torchao 0.18 warns of torch 2.13's own names

    @pytest.fixture(autouse=True)
    def _torchao(self) -> None:
        pytest.importorskip("torchao", reason="pip install 'ftlib[quantize]'")

    def test_layers_that_it_does_not_round_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="GPT2LMHeadModel has no layer of torch's Linear"):
            check_rounding(AutoModelForCausalLM.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=2)), "int8")
        with pytest.raises(ConfigError, match="int4 rounds 32 weights of a row together, and 0 has 33"):
            check_rounding(nn.Sequential(nn.Linear(33, 2)), "int4")

    def test_a_gradient_goes_through(self) -> None:
        weight = torch.randn(4, 32, requires_grad=True)
        made = rounded(weight, "int4")
        assert made.unique().numel() <= 16 * 4
        (made * 3).sum().backward()
        assert torch.equal(weight.grad, torch.full_like(weight, 3))

    def test_copies_round_too(self) -> None:
        model = nn.Sequential(nn.Linear(32, 8))
        round_weights(model, "int4")
        other = copy.deepcopy(model)
        other[0].weight.data += 1
        assert isinstance(other[0], RoundedLinear)
        assert not torch.equal(other(torch.ones(1, 32)), model(torch.ones(1, 32)))

    @pytest.mark.parametrize("to", ["int4", "int8", "fp8"])
    @pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "full"])
    def test_a_trial_is_evaluated_as_its_export_computes(
        self, to: str, adapter: dict[str, Any] | None, tree: dict[str, Any], tmp_path: Path, base: Path
    ) -> None:
        """The export of what a trial leaves, by transformers and torchao alone, has the trial's loss."""
        tree["train"] |= {"qat": to, "max_steps": 4, "learning_rate": 1e-2 if adapter else 1e-3}
        tree |= {"adapter": adapter, "scale": {"engine": "trainer"}}
        done = setting(tree, tmp_path)
        told = train(done)[-1]["eval_loss"]
        weights = Run(Path(done.run)).trial("000").weights
        assert weights is not None
        if adapter:
            plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), weights).merge_and_unload()
            weights = tmp_path / "merged"
            plain.save_pretrained(weights)
        config = TorchAoConfig(torchao_config(to))
        exported = AutoModelForCausalLM.from_pretrained(weights, quantization_config=config)
        assert _loss(exported, done) == pytest.approx(told, abs=1e-6)
        assert _loss(AutoModelForCausalLM.from_pretrained(weights), done) != pytest.approx(told, abs=1e-6)


def _loss(model: Any, done: Any) -> float:
    """The mean loss of the held-out answers' tokens."""
    from ftlib.data import load_prepared

    total, count = 0.0, 0
    for row in load_prepared(Path(done.data)).eval:
        labels = torch.tensor([row["labels"]])
        counted = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss) * counted
        count += counted
    return total / count
