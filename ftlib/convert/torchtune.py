"""torchtune's recipes (its last configurations): components by their names, and their arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ftlib.convert import scale
from ftlib.convert.conversion import Conversion, Function
from ftlib.convert.table import Table
from ftlib.convert.torchtune_data import FUNCTIONS as DATA
from ftlib.convert.torchtune_data import finish as finish_data
from ftlib.convert.values import number_of

COMPONENT = "_component_"
PLAIN = {
    "batch_size": "train.per_device_train_batch_size",
    "epochs": "train.num_train_epochs",
    "gradient_accumulation_steps": "train.gradient_accumulation_steps",
    "enable_activation_checkpointing": "train.activation_checkpointing",
    "log_every_n_steps": "train.logging_steps",
    "seed": "train.seed",
}
OPTIMIZERS = {
    "torch.optim.AdamW": "adamw_torch",
    "bitsandbytes.optim.PagedAdamW": "paged_adamw_32bit",
    "bitsandbytes.optim.PagedAdamW8bit": "paged_adamw_8bit",
    "bitsandbytes.optim.AdamW8bit": "adamw_bnb_8bit",
}
ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "output_proj": "o_proj"}
MLP = ["gate_proj", "up_proj", "down_proj"]
LORA = {"lora_rank": "adapter.r", "lora_alpha": "adapter.lora_alpha", "lora_dropout": "adapter.lora_dropout",
        "use_dora": "adapter.use_dora"}  # fmt: skip
LORA_DEFAULTS = {"adapter.r": 8, "adapter.lora_alpha": 16, "adapter.lora_dropout": 0.0}
TARGETS = ("lora_attn_modules", "apply_lora_to_mlp", "apply_lora_to_output")
FUSED = ("phi3", "phi4")  # Hugging Face keeps their query, key and value in one matrix
LOSSES = ("LinearCrossEntropyLoss", "CEWithChunkedOutputLoss", "CrossEntropyLoss", "SFTLoss")
SEEING = ("vision", "decoder_trainable", "encoder_trainable", "fusion_trainable", "image_size", "llama4")
NOT_TEXT = "ftlib trains on text, and this model has a part that sees"
LONGEST = 32_768  # tokens; torchtune cuts nothing where it is not told to


REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # OmegaConf's: the value of another key


def resolved(source: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with `${key}` and `${section.key}` replaced by what stands there; once, so that a circle
    ends."""
    return {key: _resolve(value, source) for key, value in source.items()}


def _resolve(value: Any, source: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _resolve(inner, source) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolve(inner, source) for inner in value]
    if not isinstance(value, str):
        return value
    if whole := REFERENCE.fullmatch(value):
        found = _found(source, whole[1])
        return value if found is None else found
    return REFERENCE.sub(lambda match: str(_found(source, match[1]) or match[0])[:LONGEST], value)


def _found(source: Any, path: str) -> Any:
    for part in path.split("."):
        source = source.get(part) if isinstance(source, Mapping) else None
    return source if isinstance(source, str | int | float | bool) else None


def component(value: Any) -> str:
    """The last part of a component's name."""
    return str(value.get(COMPONENT, "")).rpartition(".")[2] if isinstance(value, Mapping) else ""


def _model(conversion: Conversion, key: str, value: Any) -> None:
    name = str(value.get(COMPONENT, "")) if isinstance(value, Mapping) else ""
    if any(part in name or part in value for part in SEEING):
        return conversion.refuse(key, NOT_TEXT)
    kind = component(value)
    if not kind.startswith(("lora_", "qlora_")):
        conversion.tree["adapter"] = None
        return conversion.map(key, {"adapter": None}, "all weights; the model itself is checkpointer.checkpoint_dir")
    bits = {"model.quantization": "nf4"} if kind.startswith("qlora_") or value.get("quantize_base") else {}
    conversion.map(key, {"adapter.type": "lora", **bits}, "the model itself is checkpointer.checkpoint_dir")
    for inner, told in value.items():
        if inner not in (COMPONENT, "quantize_base"):
            _model_key(conversion, f"{key}.{inner}", str(inner), told, name)
    for path, told in LORA_DEFAULTS.items():
        conversion.default(path, told)
    return _targets(conversion, key, value)


def _model_key(conversion: Conversion, key: str, inner: str, value: Any, name: str) -> None:
    if inner in LORA:
        return conversion.map(key, {LORA[inner]: value})
    if inner in TARGETS and any(f".{family}." in name for family in FUSED):
        return conversion.refuse(key, "Hugging Face's Phi has these layers in one matrix: set adapter.target_modules")
    if inner in TARGETS:
        return conversion.map(key, {}, "it is in adapter.target_modules")
    return conversion.refuse(key, "the model is built by its own config (model.config)")


def _targets(conversion: Conversion, key: str, value: Mapping[str, Any]) -> None:
    listed = value.get("lora_attn_modules")
    names = [ATTENTION[name] for name in (listed if isinstance(listed, list) else ()) if name in ATTENTION]
    names += MLP if value.get("apply_lora_to_mlp") else []
    names += ["lm_head"] if value.get("apply_lora_to_output") else []
    conversion.put("adapter.target_modules", names or "all-linear", f"{key}: {', '.join(TARGETS)}")


def _checkpointer(conversion: Conversion, key: str, value: Any) -> None:
    folder = value.get("checkpoint_dir") if isinstance(value, Mapping) else None
    if not folder:
        return conversion.refuse(key, "it has no checkpoint_dir")
    if component(value) == "FullModelMetaCheckpointer":
        return conversion.refuse(key, "Meta's own weights: take Hugging Face's folder of the model")
    return conversion.map(key, {"model.name_or_path": str(folder)}, "a folder of Hugging Face's")


def _tokenizer(conversion: Conversion, key: str, value: Any) -> None:
    """The tokenizer is the model's own. Without a longest row, torchtune cuts none; here the longest row is told."""
    section = value if isinstance(value, Mapping) else {}
    if section.get("prompt_template"):
        conversion.refuse(f"{key}.prompt_template", "a template of torchtune's own: write the rows by it")
    length = section.get("max_seq_len")
    if isinstance(length, int):
        return conversion.map(key, {"data.max_length": length}, "the tokenizer is that of the model's folder")
    conversion.put("data.max_length", LONGEST, f"{key}: no row is cut")
    conversion.put("data.long_rows", "error", f"{key}: no row is cut")
    return conversion.map(
        key, {}, "the tokenizer is that of the model's folder; a longer row than data.max_length is told"
    )


def _optimizer(conversion: Conversion, key: str, value: Any) -> None:
    name = str(value.get(COMPONENT)) if isinstance(value, Mapping) else ""
    if name not in OPTIMIZERS:
        return conversion.refuse(key, "the optimizer is one of transformers' (train.optim)")
    fused = "_fused" if name == "torch.optim.AdamW" and value.get("fused") else ""
    rate, decay = number_of(value.get("lr", 1e-3)), number_of(value.get("weight_decay", 0.01))
    if rate is None or decay is None:
        return conversion.refuse(key, "lr or weight_decay is no number")
    settings = {"train.optim": OPTIMIZERS[name] + fused, "train.learning_rate": rate, "train.weight_decay": decay}
    strange = set(value) - {COMPONENT, "lr", "weight_decay", "fused"}
    if strange:
        conversion.refuse(f"{key}.{min(strange)}", "set train.adam_beta1, adam_beta2 or adam_epsilon")
    return conversion.map(key, settings)


def _scheduler(conversion: Conversion, key: str, value: Any) -> None:
    if component(value) != "get_cosine_schedule_with_warmup" or set(value) - {COMPONENT, "num_warmup_steps"}:
        return conversion.refuse(key, "ftlib has a cosine with a warmup: set train.lr_scheduler_type")
    steps = value.get("num_warmup_steps", 0)
    return conversion.map(key, {"train.lr_scheduler_type": "cosine", "train.warmup_steps": steps})


def _loss(conversion: Conversion, key: str, value: Any) -> None:
    name = component(value)
    if name in LOSSES:
        return conversion.harmless(key, "it is the cross-entropy of the tokens")
    if name == "DPOLoss":
        settings = {"method.type": "dpo", "method.beta": value.get("beta", 0.1)}
        return conversion.map(key, settings | {"method.label_smoothing": value.get("label_smoothing", 0.0)})
    return conversion.refuse(
        key, f"the loss {name} is of no method here: GRPO and PPO have other recipes (docs/recipes.md)"
    )


def _dtype(conversion: Conversion, key: str, value: Any) -> None:
    if value == "bf16":
        note = "the adapter itself is in float32 here" if conversion.at("adapter.type") else ""
        return conversion.map(key, {"model.dtype": "bfloat16", "train.bf16": True}, note)
    if value == "fp32":
        return conversion.map(key, {"model.dtype": "float32", "train.bf16": False})
    return conversion.refuse(key, "it is bf16 or fp32")


def _clip(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.map(key, {"train.max_grad_norm": value})


def _steps(conversion: Conversion, key: str, value: Any) -> None:
    epochs = conversion.get("epochs", 1)
    if not isinstance(value, int) or not isinstance(epochs, int):
        return conversion.refuse(key, "it is a number of steps")
    return conversion.map(key, {"train.max_steps": value * epochs}, "over all epochs")


def _logger(conversion: Conversion, key: str, value: Any) -> None:
    if component(value) == "WandBLogger":
        return conversion.map(key, {"track.wandb.project": str(value.get("project", "torchtune"))})
    return conversion.harmless(key, "metrics.jsonl has the numbers")


def _shuffle(conversion: Conversion, key: str, value: Any) -> None:
    if value is True:
        return conversion.harmless(key, "rows are met in an order that train.seed draws")
    return conversion.refuse(key, "rows are met in an order that train.seed draws")


def _resume(conversion: Conversion, key: str, value: Any) -> None:
    if value is False:
        return conversion.harmless(key, "it is off")
    return conversion.refuse(key, "torchtune's checkpoint is not ours; go on from an adapter with adapter.from")


def _teacher(conversion: Conversion, key: str, value: Any) -> None:
    folder = value.get("checkpoint_dir") if isinstance(value, Mapping) else None
    if not folder:
        return conversion.refuse(key, "it has no checkpoint_dir")
    return conversion.map(
        key,
        {"method.type": "distill", "method.kind": "logit", "method.teacher": str(folder), "method.top_k": None,
         "method.alpha": conversion.get("kd_ratio", 0.5)},
    )  # fmt: skip


def _told(why: str) -> Function:
    return lambda conversion, key, value: conversion.harmless(key, why)


FUNCTIONS: dict[str, Function] = {
    **DATA,
    "model": _model,
    "checkpointer": _checkpointer,
    "tokenizer": _tokenizer,
    "optimizer": _optimizer,
    "lr_scheduler": _scheduler,
    "loss": _loss,
    "dtype": _dtype,
    "clip_grad_norm": _clip,
    "max_steps_per_epoch": _steps,
    "metric_logger": _logger,
    "shuffle": _shuffle,
    "resume_from_checkpoint": _resume,
    "teacher_checkpointer": _teacher,
    "teacher_model": _told("the teacher is teacher_checkpointer.checkpoint_dir"),
    "kd_loss": _told("the teacher's distribution is learned (method.kind: logit)"),
    "kd_ratio": _told("it is method.alpha"),
    "tensor_parallel_dim": scale.one_row,
    "context_parallel_dim": scale.one_row,
}


def _finish(conversion: Conversion) -> None:
    """torchtune clips nothing and keeps its rate, unless it is told otherwise."""
    conversion.default("method.type", "sft")
    for path, value in {
        "train.max_grad_norm": 0,
        "train.lr_scheduler_type": "constant",
        "train.eval_strategy": "end",
        "track.wandb": None,
    }.items():
        conversion.default(path, value)
    finish_data(conversion)


TABLE = Table(
    "torchtune",
    PLAIN,
    FUNCTIONS,
    _finish,
    harmless={
        "it prints, measures or saves, and learns nothing": (
            "output_dir log_level log_peak_memory_stats profiler save_adapter_weights_only save_every_n_epochs device "
            "collate_fn name data_dir model_name enable_kv_cache"
        ),
        "it is a matter of speed and memory alone": (
            "compile enable_activation_offloading optimizer_in_bwd custom_sharded_layers fsdp_cpu_offload low_cpu_ram "
            "fsdp_reshard_after_forward memory_efficient_fsdp_wrap ac_mode ac_option tensor_parallel_plan "
            "data_parallel_shard_dim data_parallel_replicate_dim fsdp use_distributed_state_dict use_flex "
            "base_model_path"
        ),
        "a reference is the model before training": "ref_checkpointer",
    },
    refused={
        "weights of 8 or fewer bits are frozen ones (model.quantization: nf4 or int8)": "quantizer fp8_recipe_name",
        "PPO needs four models at once; use method.type: grpo or rloo": (
            "policy_model reward_and_value_model ref_policy_checkpointer value_checkpointer reward_checkpointer "
            "ppo_batch_size ppo_epochs min_response_length penalise_no_eos reward_penalty stop_token_ids "
            "whiten_rewards gamma lmbda kl_coeff forward_batch_size max_generated_tokens"
        ),
        "GRPO's rewards are functions here: set method.type: grpo and method.rewards": (
            "grpo_samples reward_functions num_steps temperature top_k orchestration inference postprocessing training"
        ),
    },
)
