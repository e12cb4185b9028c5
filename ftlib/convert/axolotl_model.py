"""Axolotl's model and adapter: which weights, in which type, and which of them are trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ftlib.config.foreign import axolotl as words
from ftlib.config.foreign import of_tool
from ftlib.convert.conversion import Conversion, Function
from ftlib.convert.kernels import attention

# Of an adapter; where Axolotl's `adapter` is empty it does not read them.
ADAPTER = {
    "lora_r": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "lora_rank_pattern": "adapter.rank_pattern",
    "lora_alpha_pattern": "adapter.alpha_pattern",
    "lora_model_dir": "adapter.from",
    "peft_use_dora": "adapter.use_dora",
    "peft_use_rslora": "adapter.use_rslora",
    "peft_init_lora_weights": "adapter.init_lora_weights",
    "peft_layers_to_transform": "adapter.layers_to_transform",
    "loraplus_lr_ratio": "adapter.lora_plus_ratio",
    "lora_modules_to_save": "adapter.modules_to_save",
    "lora_target_parameters": "adapter.target_parameters",
    "peft_ensure_weight_tying": "adapter.ensure_weight_tying",
}
ROUTER = "output_router_logits"
ALL_WEIGHTS = "'adapter' is empty, so all weights are trained, and Axolotl does not read it"
LANGUAGE = ("model.language_model", "language_model", "lm_head", "embed_tokens", "model.embed_tokens")
NOT_TEXT = "ftlib trains on text, and a processor is for images or sound"


def words_of(key: str) -> str:
    """The reason for which an experiment refuses a key."""
    return of_tool(words)[key].text


def _adapter(conversion: Conversion, key: str, value: Any) -> None:
    if value not in ("lora", "qlora"):
        return conversion.refuse(key, f"{value!r} is none of Axolotl's own adapters: set adapter.type yourself")
    settings: dict[str, Any] = {"adapter.type": "lora"}
    return conversion.map(key, settings | ({"model.quantization": "nf4"} if value == "qlora" else {}))


def _of_adapter(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.get("adapter") is None:
        return conversion.harmless(key, ALL_WEIGHTS)
    return conversion.map(key, {ADAPTER[key]: value})


def _targets(conversion: Conversion, key: str, value: Any) -> None:
    """`lora_target_linear` adds all linear layers to those that are named, so with it the names say nothing."""
    if conversion.get("adapter") is None:
        return conversion.harmless(key, ALL_WEIGHTS)
    if key == "lora_target_linear":
        if value is not True:
            return conversion.harmless(key, "it is off")
        return conversion.map(key, {"adapter.target_modules": "all-linear"})
    if conversion.get("lora_target_linear") is True:
        return conversion.harmless(key, "lora_target_linear names all of them already")
    return conversion.map(key, {"adapter.target_modules": value})


def _bits(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True:
        return conversion.harmless(key, "it is off")
    if conversion.get("adapter") is None:
        return conversion.refuse(key, "quantized weights are frozen: only an adapter is trained on them")
    return conversion.map(key, {"model.quantization": "nf4" if key == "load_in_4bit" else "int8"})


def _experts(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True:
        return conversion.harmless(key, "it is off")
    if conversion.get("lora_target_parameters"):
        return conversion.refuse(
            key, "PEFT does not take its B A off quantized experts after a step: they stay plain, or leave out "
                 "lora_target_parameters")  # fmt: skip
    return conversion.map(key, {"model.quantize_moe_experts": True})


def _bnb(conversion: Conversion, key: str, value: Any) -> None:
    if isinstance(value, Mapping) and value.get("bnb_4bit_use_double_quant", True) is True and len(value) == 1:
        return conversion.harmless(key, "nf4 with its constants quantized too is what model.quantization: nf4 means")
    return conversion.refuse(key, words_of(key))


def _precision(conversion: Conversion, key: str, value: Any) -> None:
    """Axolotl loads the weights in the type that it computes in; `auto` is bfloat16 on a GPU that has it."""
    if value in (True, "auto", "full"):
        return conversion.map(key, {"train.bf16": True, "model.dtype": "bfloat16"})
    if value is False:
        return conversion.map(key, {"train.bf16": False})
    return conversion.refuse(key, "it is true, false, auto or full")


def _dtype(conversion: Conversion, key: str, value: Any) -> None:
    if value is False:
        return conversion.harmless(key, "it is off")
    names = {"torch_dtype": str(value).removeprefix("torch."), "float32": "float32", "float16": "float16"}
    if conversion.get("bf16") in (True, "auto", "full"):
        return conversion.harmless(key, "bf16 says the type of the weights")
    return conversion.map(key, {"model.dtype": names[key]})


def _special_tokens(conversion: Conversion, key: str, value: Any) -> None:
    """Also the older `tokens: {pad_token: ...}`."""
    if isinstance(value, list):
        return conversion.map(key, {"model.special_tokens.tokens": value})
    if not isinstance(value, Mapping):
        return conversion.refuse(key, "it is a mapping of names to tokens, or a list of tokens")
    held = {f"model.special_tokens.{name}": token for name, token in value.items() if token}
    return conversion.map(key, held) if held else conversion.harmless(key, "it is empty")


def _same_model(conversion: Conversion, key: str, value: Any) -> None:
    if value == conversion.get("base_model"):
        return conversion.harmless(key, "it is base_model")
    if key == "tokenizer_config":
        return conversion.map(key, {"model.tokenizer": value})
    return conversion.refuse(key, "the config of one model and the weights of another: make a folder that has both")


def _model_config(conversion: Conversion, key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        return conversion.refuse(key, "it is a mapping of keys of config.json")
    settings = {f"model.config.{name}": told for name, told in value.items() if name != ROUTER}
    return conversion.map(
        key, settings, "TRL adds the loss of a router of experts itself" if adds_router_loss(conversion) else ""
    )


def adds_router_loss(conversion: Conversion) -> bool:
    """Whether the loss of a router of experts is added, with the weight that is in the model's config."""
    sections = (conversion.get("model_config"), conversion.get("overrides_of_model_config"))
    return any(isinstance(section, Mapping) and section.get(ROUTER) is True for section in sections)


def _loftq(conversion: Conversion, key: str, value: Any) -> None:
    inner = value.get("loftq_config") if isinstance(value, Mapping) and len(value) == 1 else None
    if isinstance(inner, Mapping) and inner.get("loftq_bits", 4) == 4:
        settings = {"adapter.init_lora_weights": "loftq", "model.quantization": "nf4"}
        return conversion.map(key, settings, "LoftQ makes up for what nf4 rounds away")
    return conversion.refuse(key, words_of(key))


def _dequantized(conversion: Conversion, key: str, value: Any) -> None:
    """gpt-oss comes in MXFP4; Axolotl trains it dequantized, as transformers loads it where its kernels are not."""
    kwargs = conversion.get("model_quantization_config_kwargs")
    if conversion.get("model_quantization_config") == "Mxfp4Config" and kwargs == {"dequantize": True}:
        return conversion.harmless(
            key, "transformers dequantizes it where the package kernels is not installed", look=True
        )
    return conversion.refuse(key, words_of(key))


def _unfrozen(conversion: Conversion, key: str, value: Any) -> None:
    """Parts that are trained, as patterns over names: harmless where they are all that text trains."""
    if conversion.get("adapter") is not None:
        return conversion.harmless(key, "an adapter is trained, and the rest is frozen anyway")
    names = [str(name).strip("^.*$\\ ") for name in (value if isinstance(value, list) else [value])]
    if "model.language_model" in names and all(name in LANGUAGE for name in names):
        return conversion.harmless(key, "these are all weights that text trains: a vision tower gets no gradient")
    patterns = [str(one) for one in (value if isinstance(value, list) else [value])]
    if any(re.search(r"\[[0-9]*(:[0-9]*)?\]$", pattern) and ":" in pattern for pattern in patterns):
        return conversion.refuse(key, "a weight is trained as a whole, not some of its rows")
    literal = [re.sub(r"\.(?!\+)", r"\\.", pattern) for pattern in patterns]
    settings = {"adapter.type": "layers", "adapter.parameters": literal}
    return conversion.map(key, settings, "names of weights are those of transformers 5", look=True)


def _fan_in(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.harmless(key, "PEFT sets it by the class of each layer")


def _mistral(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True:
        return conversion.harmless(key, "it is off")
    told = "the same model's tokenizer.json and its chat template are read; 'ftlib check' prints what they write"
    return conversion.harmless(key, told, look=True)


def _not_text(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.refuse(key, NOT_TEXT)


FUNCTIONS: dict[str, Function] = {
    **dict.fromkeys(ADAPTER, _of_adapter),
    **dict.fromkeys(("lora_target_linear", "lora_target_modules"), _targets),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), _bits),
    **dict.fromkeys(("bf16", "bfloat16"), _precision),
    **dict.fromkeys(("torch_dtype", "float16", "float32"), _dtype),
    **dict.fromkeys(("special_tokens", "tokens"), _special_tokens),
    **dict.fromkeys(("base_model_config", "tokenizer_config"), _same_model),
    **dict.fromkeys(("model_config", "overrides_of_model_config"), _model_config),
    **dict.fromkeys(("processor_type", "freeze_mm_modules", "image_size", "image_resize_algorithm"), _not_text),
    **dict.fromkeys(("model_quantization_config", "model_quantization_config_kwargs"), _dequantized),
    **dict.fromkeys(
        (
            "attn_implementation",
            "flash_attention",
            "sdp_attention",
            "eager_attention",
            "flex_attention",
            "xformers_attention",
            "sage_attention",
        ),
        attention,
    ),
    "adapter": _adapter,
    "quantize_moe_experts": _experts,
    "unfrozen_parameters": _unfrozen,
    "lora_fan_in_fan_out": _fan_in,
    "tokenizer_use_mistral_common": _mistral,
    "bnb_config_kwargs": _bnb,
    "peft": _loftq,
    "full_finetune": lambda conversion, key, value: conversion.harmless(key, "adapter says it"),
    "reinit_weights": lambda conversion, key, value: conversion.map(
        key, {"model.init": "random" if value else "pretrained"}
    ),
}
