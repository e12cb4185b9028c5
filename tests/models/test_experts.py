"""Mixtures of experts: adapters on experts (`target_parameters`), and experts in fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

from ftlib.config import Experiment, ModelSection
from ftlib.data import prepare
from ftlib.errors import ConfigError
from ftlib.models.adapters.build import add_adapter
from ftlib.models.adapters.merge import merge
from ftlib.models.base import count_parameters, load_model, load_tokenizer
from ftlib.models.experts import plain_experts
from ftlib.pack.frozen_base import CannotPack
from ftlib.run.directory import Run
from ftlib.training.estimate import estimate
from tests.pack.conftest import losses as packed_losses
from tests.pack.conftest import pack_of, trial
from tests.pack.conftest import train as train_pack
from tests.support.reload_adapters import logits
from tests.training.test_trial import losses, setting, train

IDS = torch.arange(5, 29).reshape(2, 12)
EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]


@pytest.fixture(scope="module")
def mixture(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of four experts with random weights, and the tokenizer of the tiny Llama."""
    folder, tokenizer = tmp_path_factory.mktemp("mixture"), AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 64, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 2}
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        num_experts=4,
        num_experts_per_tok=2,
        eos_token_id=1,
        pad_token_id=0,
        **sizes,
        **heads,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_adapters_on_experts_are_trained_reloaded_and_merged(
    mixture: Path, tree: dict[str, Any], tmp_path: Path
) -> None:
    tree["model"]["name_or_path"] = str(mixture)
    tree["adapter"] |= {"target_modules": ["q_proj"], "target_parameters": EXPERTS}
    tree["train"] |= {"max_steps": 4, "logging_steps": 1}
    done = setting(tree, tmp_path)
    train(done)
    assert losses(done)[-1][1] < losses(done)[0][1]
    folder, section = Run(Path(done.run)).trial("000").path / "adapter", Experiment.parse(tree).model
    trained = logits(PeftModel.from_pretrained(load_model(section), folder), IDS)
    assert not torch.allclose(trained, logits(load_model(section), IDS))
    merge(folder, section, tmp_path / "merged")
    assert (logits(Qwen3MoeForCausalLM.from_pretrained(tmp_path / "merged"), IDS) - trained).abs().max() < 1e-5


def test_an_adapter_on_experts_is_pefts(mixture: Path, tree: dict[str, Any]) -> None:
    tree["model"]["name_or_path"] = str(mixture)
    tree["adapter"] |= {"target_modules": ["q_proj"], "target_parameters": EXPERTS}
    experiment = Experiment.parse(tree)
    torch.manual_seed(3)
    ours = add_adapter(load_model(experiment.model), experiment.adapter).state_dict()
    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], target_parameters=EXPERTS, task_type="CAUSAL_LM")
    theirs = get_peft_model(load_model(experiment.model), config).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("key", ["modules_to_save", "target_parameters"])
def test_a_name_that_is_not_there_is_refused(key: str, tree: dict[str, Any]) -> None:
    tree["adapter"][key] = ["embed_token.weigth"]
    experiment = Experiment.parse(tree)
    with pytest.raises(ConfigError, match=f"adapter.{key}: LlamaForCausalLM has no 'embed_token.weigth'"):
        add_adapter(load_model(experiment.model), experiment.adapter)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_experts_in_fewer_bits_compute_what_they_hold(quantization: Any, mixture: Path) -> None:
    section = ModelSection(name_or_path=str(mixture), quantization=quantization)
    few = load_model(section.model_copy(update={"quantize_moe_experts": True}))
    assert count_parameters(few)[0] == count_parameters(load_model(section))[0]
    parts = [part for name, part in few.named_parameters() if "experts" in name]
    assert {part.dtype for part in parts} == {torch.uint8 if quantization == "nf4" else torch.int8}
    held = logits(few, IDS)
    plain_experts(few)
    assert torch.equal(logits(few, IDS), held)
    before = load_model(section).get_submodule("model.layers.0.mlp.experts").gate_up_proj.data
    after = few.get_submodule("model.layers.0.mlp.experts").gate_up_proj.data
    assert 0 < (before - after).abs().max() < before.abs().max() / (4 if quantization == "nf4" else 100)
    if quantization == "nf4":
        packed, state = quantize_4bit(before, compress_statistics=True, quant_type="nf4")
        assert torch.equal(after, dequantize_4bit(packed, state))


def test_a_model_without_experts_is_refused(base: Path) -> None:
    section = ModelSection(name_or_path=str(base), quantization="nf4", quantize_moe_experts=True)
    with pytest.raises(ConfigError, match="model.quantize_moe_experts: LlamaForCausalLM has no experts in one tensor"):
        load_model(section)


def test_an_adapter_beside_few_bits_is_merged_into_what_it_was_trained_beside(
    mixture: Path, tree: dict[str, Any], tmp_path: Path
) -> None:
    tree["model"] |= {"name_or_path": str(mixture), "quantization": "nf4", "quantize_moe_experts": True}
    tree["adapter"]["target_modules"] = ["q_proj", "v_proj"]
    tree["train"] |= {"max_steps": 3, "logging_steps": 1}
    done = setting(tree, tmp_path)
    train(done)
    folder, section = Run(Path(done.run)).trial("000").path / "adapter", Experiment.parse(tree).model
    trained = logits(PeftModel.from_pretrained(load_model(section), folder), IDS)
    merge(folder, section, tmp_path / "merged")
    assert (logits(Qwen3MoeForCausalLM.from_pretrained(tmp_path / "merged"), IDS) - trained).abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")
def test_adapters_on_experts_in_few_bits_are_refused(mixture: Path, tree: dict[str, Any]) -> None:
    tree["model"] |= {"name_or_path": str(mixture), "quantization": "nf4", "quantize_moe_experts": True}
    experiment = Experiment.parse(tree)
    with pytest.raises(ConfigError, match="with all-linear PEFT would adapt experts"):
        add_adapter(load_model(experiment.model), experiment.adapter)


def test_a_pack_leaves_the_loss_of_a_router_to_trl(mixture: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    tree["model"] |= {"name_or_path": str(mixture), "quantization": "nf4", "quantize_moe_experts": True}
    tree["adapter"]["target_modules"] = ["q_proj", "v_proj"]
    tree["train"] |= {"max_steps": 4, "logging_steps": 1}
    with pytest.raises(CannotPack, match="the router of Qwen3MoeForCausalLM has a loss of its own"):
        pack_of(setting(tree, tmp_path / "with"))
    alone = {}
    for weight in (None, 0):
        tree["method"]["router_aux_loss_coef"] = weight
        train(done := setting(tree, tmp_path / str(weight)))
        alone[weight] = [loss for _, loss in losses(done)]
    assert alone[None] != alone[0]  # TRL adds it of itself
    packed = setting(tree, tmp_path / "pack")
    assert train_pack(pack_of(packed), {"000": {}}) == {}
    assert packed_losses(trial(packed, "000")) == pytest.approx(alone[0], rel=1e-4)


def test_experts_that_stay_plain_are_most_of_the_memory(mixture: Path, tree: dict[str, Any]) -> None:
    tree["model"] |= {"name_or_path": str(mixture), "quantization": "nf4"}
    tree["adapter"]["target_modules"] = ["q_proj"]
    experiment = Experiment.parse(tree)
    data = prepare(experiment.data, "answers", load_tokenizer(experiment.model)).report
    plain = estimate(experiment, data).memory_gib
    tree["model"]["quantize_moe_experts"] = True
    experts = 2 * 4 * (128 + 64) * 64
    saved = (plain - estimate(Experiment.parse(tree), data).memory_gib) * 2**30
    assert saved == pytest.approx(experts * (4 - 0.52), rel=1e-3)
