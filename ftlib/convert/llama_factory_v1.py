"""The keys of LLaMA-Factory's new way (`v1`: model, train_dataset, dist_config), whose trainer is its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlib.config.loader import read_mapping
from ftlib.convert import beside, scale
from ftlib.convert.conversion import Conversion, Function
from ftlib.convert.kernels import attention
from ftlib.convert.llama_factory_data import REPOSITORY
from ftlib.convert.table import Table
from ftlib.convert.trainer import modules

PLAIN = {
    "model": "model.name_or_path",
    "trust_remote_code": "model.trust_remote_code",
    "micro_batch_size": "train.per_device_train_batch_size",
    "cutoff_len": "data.max_length",
    "learning_rate": "train.learning_rate",
    "num_train_epochs": "train.num_train_epochs",
    "max_steps": "train.max_steps",
    "max_grad_norm": "train.max_grad_norm",
    "bf16": "train.bf16",
    "enable_activation_checkpointing": "train.activation_checkpointing",
    "logging_steps": "train.logging_steps",
    "save_steps": "train.save_steps",
    "seed": "train.seed",
    "pref_beta": "method.beta",
    "simpo_gamma": "method.simpo_gamma",
    "dpo_label_smoothing": "method.label_smoothing",
}
LORA = {"r": "adapter.r", "lora_alpha": "adapter.lora_alpha", "lora_dropout": "adapter.lora_dropout",
        "use_rslora": "adapter.use_rslora", "use_dora": "adapter.use_dora",
        "adapter_name_or_path": "adapter.from"}  # fmt: skip
LORA_DEFAULTS = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05}
# The lists of rows that lie in the repository: name -> its converter's format. Their sizes are of the list itself.
IN_REPOSITORY: dict[str, dict[str, dict[str, Any]]] = {
    "v1_sft_demo.yaml": {
        "identity": {"path": "data/identity.json", "converter": "alpaca"},
        "alpaca_en_demo": {"path": "data/alpaca_en_demo.json", "converter": "alpaca", "size": 500},
    },
    "v1_multimodal_demo.yaml": {"mllm_demo": {"path": "data/v1_multimodal_demo.jsonl", "converter": "multimodal"}},
    "v1_dpo_demo.yaml": {
        "dpo_zh_demo": {"path": "HuggingFaceH4/orca_dpo_pairs", "split": "train_prefs", "converter": "pair"}
    },
}
FORMATS = {"alpaca": "alpaca", "sharegpt": "sharegpt", "pair": "preference", "openai": "messages"}
ROWS_OF_ALPACA_DEMO = 1000  # of which the list takes a half


def is_v1(found: Mapping[str, Any]) -> bool:
    """Whether a configuration is of the new way."""
    return "train_dataset" in found or ("model" in found and "peft_config" in found)


def _told(why: str) -> Function:
    return lambda conversion, key, value: conversion.harmless(key, why)


def _train(conversion: Conversion, key: str, value: Any) -> None:
    listed, note = _listed(conversion, str(value))
    if listed is None:
        return conversion.refuse(
            key, f"there is no list of data sets {value!r} here: run this beside it, or set data.train"
        )
    members = [_member(told) for told in listed.values() if isinstance(told, Mapping)]
    if None in members or len(members) != len(listed):
        return conversion.refuse(
            key, "ftlib trains on text, and reads the converters alpaca, sharegpt, openai and pair"
        )
    pairs = any(member and member["format"] == "preference" for member in members)
    conversion.put("method.type", "dpo" if pairs else "sft", key)
    return conversion.map(key, {"data.train": members}, note, look=True)


def _listed(conversion: Conversion, name: str) -> tuple[Mapping[str, Any] | None, str]:
    if (place := beside.find(conversion.folder, name)) is not None and place.suffix in (".yaml", ".yml"):
        return read_mapping(place, "a list of data sets"), "a size is a share of the rows here: see weight"
    if (known := IN_REPOSITORY.get(Path(name).name)) is not None:
        return known, f"copy data/ of LLaMA-Factory's repository ({REPOSITORY}) to here"
    return None, ""


def _member(told: Mapping[str, Any]) -> dict[str, Any] | None:
    if told.get("converter") not in FORMATS or not told.get("path"):
        return None
    found: dict[str, Any] = {"path": told["path"], "format": FORMATS[told["converter"]]}
    if told.get("path") == "data/alpaca_en_demo.json" and isinstance(told.get("size"), int):
        found["weight"] = told["size"] / ROWS_OF_ALPACA_DEMO
    if isinstance(told.get("weight"), int | float):
        found["weight"] = told["weight"]
    return found | ({"hub_split": told["split"]} if told.get("split") else {})


def _peft(conversion: Conversion, key: str, value: Any) -> None:
    name = value.get("name") if isinstance(value, Mapping) else None
    if name not in ("lora", "freeze"):
        return conversion.refuse(key, "it is a mapping whose name is lora or freeze")
    conversion.map(key, {"adapter.type": "lora" if name == "lora" else "layers"})
    if name == "lora" and not value.get("adapter_name_or_path"):
        for inner, told in LORA_DEFAULTS.items():
            conversion.default(LORA[inner], told)
        conversion.default("adapter.target_modules", "all-linear")
    for inner, told in value.items():
        if inner != "name":
            _peft_key(conversion, f"{key}.{inner}", str(inner), told, name)
    return None


def _peft_key(conversion: Conversion, key: str, inner: str, value: Any, name: str) -> None:
    if value in (None, "", []):
        return conversion.harmless(key, "it is empty")
    if name == "lora" and inner in LORA:
        return conversion.map(key, {LORA[inner]: value})
    if name == "lora" and inner == "target_modules":
        return modules(conversion, key, value)
    if name == "freeze" and inner == "freeze_trainable_layers" and isinstance(value, int) and value > 0:
        return conversion.map(key, {"adapter.num_layers": value})
    if inner == "freeze_trainable_modules" and value == "all":
        return conversion.harmless(key, "all modules of a layer are trained")
    if inner in ("export_dir", "export_size", "export_hub_model_id", "infer_dtype", "export_legacy_format"):
        return conversion.harmless(key, "an adapter is kept beside its base; 'ftlib merge' computes it in")
    return conversion.refuse(key, "an adapter trains its own weights alone, of all layers or the last ones")


def _distribution(conversion: Conversion, key: str, value: Any) -> None:
    name = value.get("name") if isinstance(value, Mapping) else None
    if name == "deepspeed":
        return scale.deepspeed(conversion, key, value.get("config_file"))
    if name == "fsdp2":
        return scale.fsdp(conversion, key, {inner: told for inner, told in value.items() if inner != "name"})
    if name == "fsdpturbo" and value.get("ep_size", 1) != 1:
        return conversion.refuse(key, "experts are spread as the rest of the model is: use dist_config: {name: fsdp2}")
    return conversion.refuse(key, f"'{name}' spreads experts or sequences: use scale.strategy: fsdp or deepspeed")


def _quantization(conversion: Conversion, key: str, value: Any) -> None:
    bits = value.get("quantization_bit") if isinstance(value, Mapping) else None
    if bits not in (4, 8):
        return conversion.refuse(key, "it is quantization_bit: 4 or 8")
    return conversion.map(key, {"model.quantization": "nf4" if bits == 4 else "int8"})


def _optimizer(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.refuse(key, "the optimizer is one of transformers' (train.optim)")


def _class(conversion: Conversion, key: str, value: Any) -> None:
    if value == "llm":
        return conversion.harmless(key, "the class is the model's own")
    return conversion.refuse(key, "ftlib trains on text")


def _global_batch(conversion: Conversion, key: str, value: Any) -> None:
    rows = conversion.get("micro_batch_size", 1) * conversion.gpus
    if not isinstance(value, int) or value % rows:
        return conversion.refuse(key, f"it is no multiple of micro_batch_size x GPUs = {rows}: --gpus says how many")
    return conversion.map(key, {"train.gradient_accumulation_steps": value // rows})


def _batching(conversion: Conversion, key: str, value: Any) -> None:
    if value in ("normal", "padding_free"):
        return conversion.harmless(key, "it is a matter of speed alone, and ftlib chooses it")
    return conversion.refuse(key, "a batch is a number of rows here, not of tokens: use batching_strategy: normal")


def _loss(conversion: Conversion, key: str, value: Any) -> None:
    if value in ("orpo", "simpo"):
        return conversion.map(key, {"method.type": value})
    return conversion.map(key, {"method.loss_type": value})


FUNCTIONS: dict[str, Function] = {
    "train_dataset": _train,
    "peft_config": _peft,
    "dist_config": _distribution,
    "quant_config": _quantization,
    "optim_config": _optimizer,
    "lr_scheduler_config": lambda conversion, key, value: conversion.refuse(key, "set train.lr_scheduler_type"),
    "model_class": _class,
    "global_batch_size": _global_batch,
    "batching_strategy": _batching,
    "pref_loss": _loss,
    "flash_attn": attention,
    "cp_size": scale.one_row,
    "cp_mode": _told("how a row is cut changes nothing that is learned"),
}


def _finish(conversion: Conversion) -> None:
    """What the new trainer does of itself: AdamW of torch, a constant rate, three epochs."""
    if conversion.get("peft_config") is None:
        conversion.tree["adapter"] = None
    for path, value in {
        "train.learning_rate": 1e-4,
        "train.num_train_epochs": 3,
        "train.per_device_train_batch_size": 1,
        "train.weight_decay": 0.01,
        "train.lr_scheduler_type": "constant",
        "train.optim": "adamw_torch",
        "train.activation_checkpointing": True,
        "train.bf16": True,
        "train.eval_strategy": "end",
        "data.max_length": 2048,
        "data.template": "tokenizer",
        "data.eval_split": 0,
        "track.wandb": None,
    }.items():
        conversion.default(path, value)
    if conversion.at("method.type") in ("sft", "pretrain"):
        conversion.default("method.router_aux_loss_coef", 0)
    if conversion.at("data.train") is None and not any(fate.key == "train_dataset" for fate in conversion.refused):
        conversion.refuse("train_dataset", "the file names no rows to train on: set data.train")


TABLE = Table(
    "LLaMA-Factory (v1)",
    PLAIN,
    FUNCTIONS,
    _finish,
    harmless={
        "it prints, saves or writes samples, and learns nothing": (
            "output_dir sample_backend max_new_tokens save_total_limit save_ckpt_as_hf save_epochs dist_timeout "
            "batching_workers resume_from_checkpoint"
        ),
        "it is a matter of speed alone": (
            "kernel_config init_config use_v1_kernels dp_size mp_replicate_size mp_shard_size"
        ),
    },
    refused={
        "the tokenizer's own template is used": "custom_chat_template",
        "name the rows to evaluate on in data.eval": "eval_dataset",
        "DPO is computed as TRL does, with what method has": "pref_ftx ld_alpha full_determinism",
    },
)
