"""What a layer makes of a vector: the same beside its base and merged, and far from it when a matrix is another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from ftlib.errors import FtlibError
from ftlib.export.layers import LIMIT, check_layers, farthest, layers_of

PLACE = "model.layers.1.self_attn.q_proj"


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=99, **shape)).eval()


@pytest.mark.parametrize(
    "more", [{"target_modules": ["q_proj"]}, {"target_modules": "all-linear", "modules_to_save": ["lm_head"]},
             {"target_modules": ["q_proj"], "trainable_token_indices": [3, 4]}]
)  # fmt: skip
def test_an_adapter_beside_its_base_is_the_merged_model(model: Any, more: dict[str, Any]) -> None:
    base = layers_of(model)
    tuned = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, **more)).eval()
    beside = layers_of(tuned)
    assert beside.keys() == base.keys()
    assert farthest(beside, base)[1] > 0.05
    assert farthest(beside, layers_of(tuned.merge_and_unload()))[1] < 1e-5


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """To four bits, with a scale for each 32."""
    groups = weight.reshape(-1, 32)
    scale = groups.abs().amax(1, keepdim=True) / 7
    return ((groups / scale).round() * scale).reshape(weight.shape)


def test_rounding_to_four_bits_is_no_fault(model: Any) -> None:
    before = layers_of(model)
    for part in model.parameters():
        if part.dim() == 2:
            part.data = rounded(part.data)
    assert 0.05 < farthest(before, layers_of(model))[1] < LIMIT / 2


@pytest.mark.parametrize("fault", [lambda w: w.T, lambda w: w.roll(1, 0), lambda w: w / 2, lambda w: -w])
def test_another_matrix_is_refused_by_name(model: Any, fault: Callable[[torch.Tensor], torch.Tensor]) -> None:
    before = layers_of(model)
    layer = model.get_submodule(PLACE)
    layer.weight.data = fault(layer.weight.data).contiguous()
    with pytest.raises(FtlibError, match=rf"its layer {PLACE} is \d[.\d]* of its size apart"):
        check_layers(before, layers_of(model), "it")


def test_a_layer_that_is_not_there_or_of_another_shape_is_refused(model: Any) -> None:
    before = layers_of(model)
    for after in ({}, before | {PLACE: torch.ones(3)}):
        with pytest.raises(FtlibError, match="is inf of its size apart"):
            check_layers(before, after, "it")
    assert check_layers(before, None, "it") is None
