"""How deep weights lie, by their names in models of several families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
)

from ftlib.errors import ConfigError
from ftlib.models.depth import Depths, top_of

SMALL = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 20}


def made(config: Any, classes: bool = False) -> Any:
    with torch.device("meta"):
        return (AutoModelForSequenceClassification if classes else AutoModelForCausalLM).from_config(config)


MODELS: dict[str, tuple[Any, bool, int, set[str], set[str]]] = {  # its top, weights at 0, weights above the layers
    "llama": (LlamaConfig(**SMALL), False, 4, {"model.embed_tokens.weight"}, {"model.norm.weight", "lm_head.weight"}),
    "tied llama": (
        LlamaConfig(**SMALL, tie_word_embeddings=True),
        False,
        3,
        {"model.embed_tokens.weight"},
        {"model.norm.weight"},
    ),
    "gpt2": (
        GPT2Config(n_embd=8, n_layer=3, n_head=2, vocab_size=20),
        False,
        3,
        {"transformer.wte.weight", "transformer.wpe.weight"},
        {"transformer.ln_f.weight", "transformer.ln_f.bias"},
    ),
    "neox": (
        GPTNeoXConfig(**SMALL),
        False,
        4,
        {"gpt_neox.embed_in.weight"},
        {"gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias", "lm_head.weight"},
    ),
    "opt": (
        OPTConfig(hidden_size=8, ffn_dim=16, num_hidden_layers=3, num_attention_heads=2, vocab_size=20),
        False,
        3,
        {"model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"},
        {"model.decoder.final_layer_norm.weight", "model.decoder.final_layer_norm.bias"},
    ),
    "bert classifier": (
        BertConfig(**SMALL),
        True,
        4,
        {
            *(f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")),
            *(f"bert.embeddings.LayerNorm.{part}" for part in ("weight", "bias")),
        },
        {f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_layers_and_what_stands_above(name: str) -> None:
    config, classes, top, lowest, above = MODELS[name]
    model = made(config, classes)
    depths = Depths.of(model)
    found = {weight: depths.depth(weight) for weight, _ in model.named_parameters()}
    assert {weight for weight, depth in found.items() if depth == 0} == lowest
    assert {weight for weight, depth in found.items() if depth == 4} == above
    assert set(found.values()) == {0, 1, 2, 3, 4}
    assert all(f".{depth - 1}." in weight for weight, depth in found.items() if 0 < depth < 4)
    assert top_of(depths.trained(model)) == top


def test_an_adapter_lies_in_its_layer() -> None:
    model = get_peft_model(
        made(LlamaConfig(**SMALL)), LoraConfig(target_modules=["q_proj"], layers_to_transform=[0, 1])
    )
    assert sorted({depth for _, depth in Depths.of(model).trained(model)}) == [1, 2]
    assert top_of(Depths.of(model).trained(model)) == 2


def test_a_model_whose_layers_are_elsewhere_is_refused() -> None:
    model = made(LlamaConfig(**SMALL))
    model.config.num_hidden_layers = 5
    with pytest.raises(ConfigError, match="the layers of LlamaForCausalLM are not where they are looked for"):
        Depths.of(model)
