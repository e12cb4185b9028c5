"""Trials of one pack that adapt other layers, with other ranks, or whose optimizers treat A and B apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file

from ftlib.errors import TrialError
from ftlib.files.json_files import read_json
from tests.training.test_trial import setting

from .conftest import assert_same_bits, left_behind, losses, pack_of, train, trial
from .test_truth import both

POINTS: dict[str, dict[str, Any]] = {
    "names": {"adapter.target_modules": ["q_proj", "v_proj"], "adapter.r": 8, "train.weight_decay": 0.3},
    "layers": {"adapter.layers_to_transform": [1], "adapter.use_rslora": True},
    "patterns": {
        "adapter.rank_pattern": {"q_proj": 6, r"layers\.1\..*up_proj": 2},
        "adapter.alpha_pattern": {"v_proj": 3},
    },
    "plus": {"adapter.lora_plus_ratio": 8, "train.learning_rate": 1e-3, "train.weight_decay": 0.1},
    "frozen": {"adapter.lora_fa": True, "train.learning_rate": 3e-3, "train.weight_decay": 0.1},
    "dora": {"adapter.use_dora": True, "train.learning_rate": 3e-3, "train.weight_decay": 0.1},
    "plain": {"train.learning_rate": 3e-3},
}
SPACE: dict[str, list[Any]] = {
    "adapter.r": [4, 8],
    "adapter.target_modules": ["all-linear", ["q_proj", "v_proj"]],
    "adapter.layers_to_transform": [None, [1]],
    "adapter.rank_pattern": [{}, POINTS["patterns"]["adapter.rank_pattern"]],
    "adapter.use_dora": [False, True],
}


@pytest.fixture
def tree(tree: dict[str, Any]) -> dict[str, Any]:
    tree["train"].update(max_steps=8, logging_steps=1, eval_strategy="steps", eval_steps=4)
    tree["sweep"] = {"space": SPACE, "search": {"type": "grid"}}
    return tree


def test_each_is_the_trial_alone(tree: dict[str, Any], tmp_path: Path) -> None:
    for name, (alone, packed) in zip(POINTS, both(tree, tmp_path, list(POINTS.values()), shares=False), strict=True):
        for key, near in (("loss", 1e-4), ("eval_loss", 1e-4), ("learning_rate", 1e-6), ("grad_norm", 1e-3)):
            assert losses(packed, key) == pytest.approx(losses(alone, key), rel=near), (name, key)
        ours, theirs = (load_file(found.weights / "adapter_model.safetensors") for found in (packed, alone))
        assert ours.keys() == theirs.keys(), name
        for tensor, part in ours.items():
            assert torch.allclose(part, theirs[tensor], atol=2e-3), (name, tensor)
        config = read_json(packed.weights / "adapter_config.json")
        for key in ("rank_pattern", "alpha_pattern", "layers_to_transform"):
            assert config[key] == read_json(alone.weights / "adapter_config.json")[key]
        again = AutoPeftModelForCausalLM.from_pretrained(packed.weights)
        assert len([name for name, _ in again.named_parameters() if ".lora_A." in name]) == len(
            [name for name in ours if ".lora_A." in name]
        )


def test_neighbours_change_no_bit_and_no_resume(tree: dict[str, Any], tmp_path: Path) -> None:
    """Beside all others, and cut after some steps."""
    tree["train"].update(max_steps=6, eval_steps=3)
    made = setting(tree, tmp_path)

    def before(pack: Any, tick: int) -> None:
        if tick == 4:
            for name, point in POINTS.items():
                pack.depart(name)
                pack.join(name, point, lambda row: None)

    assert train(pack_of(made), POINTS, before) == {}
    one = pack_of(made, slots=1)
    for name, point in POINTS.items():
        assert train(one, {f"{name} alone": point}) == {}
        assert_same_bits(left_behind(trial(made, f"{name} alone")), left_behind(trial(made, name)))


def test_a_layer_that_the_pack_lacks_is_refused_by_its_name(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["sweep"] = None
    tree["adapter"]["target_modules"] = ["q_proj"]
    pack = pack_of(setting(tree, tmp_path), slots=1)
    with pytest.raises(TrialError, match=r"target_modules: the pack has no room .*k_proj"):
        pack.join("000", {"adapter.target_modules": ["k_proj"]}, lambda row: None)


def test_gpt2s_transposed_layers(tree: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tree["model"]["name_or_path"])
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), embd_pdrop=0.0, **shape, **ends)).save_pretrained(
        tmp_path / "g"
    )
    tokenizer.save_pretrained(tmp_path / "g")
    tree["model"]["name_or_path"], tree["sweep"] = str(tmp_path / "g"), None
    tree["train"].update(max_steps=3, eval_steps=3)
    points = [{"train.learning_rate": 3e-3}, {"adapter.r": 8}]
    for alone, packed in both(tree, tmp_path, points, shares=False):
        assert losses(packed) == pytest.approx(losses(alone), rel=1e-4)
        ours, theirs = (load_file(found.weights / "adapter_model.safetensors") for found in (packed, alone))
        assert {name: part.shape for name, part in ours.items()} == {name: part.shape for name, part in theirs.items()}
        assert read_json(packed.weights / "adapter_config.json")["fan_in_fan_out"]
