"""The keys of transformers' TrainingArguments, which LLaMA-Factory, TRL and Unsloth share. Most keep their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ftlib.convert import scale
from ftlib.convert.conversion import Conversion, Function
from ftlib.convert.optimizers import optimizer
from ftlib.convert.table import choose
from ftlib.convert.values import is_number, number_of

SAME = (
    "num_train_epochs per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps "
    "weight_decay max_grad_norm adam_beta1 adam_beta2 adam_epsilon dataloader_num_workers seed "
    "neftune_noise_alpha save_steps optim_target_modules"
)
ARGUMENTS = {name: f"train.{name}" for name in SAME.split()}
SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "inverse_sqrt",
             "cosine_with_min_lr", "warmup_stable_decay")  # fmt: skip
TRACKERS: dict[str, dict[str, Any]] = {
    "wandb": {"track.wandb.mode": "auto"},
    "tensorboard": {"track.tensorboard": True},
    "mlflow": {"track.mlflow.experiment": "ftlib"},
}
# TrainingArguments of which `foreign` has the answer in the table of another tool.
ARGUMENTS_ALSO = (
    "save_strategy save_total_limit save_only_model save_safetensors load_best_model_at_end logging_first_step "
    "dataloader_pin_memory dataloader_prefetch_factor dataloader_drop_last group_by_length ddp_timeout "
    "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers gradient_checkpointing_kwargs "
    "remove_unused_columns fp16 torch_compile torch_compile_backend torch_compile_mode "
    "hub_model_id hub_strategy push_to_hub debug local_rank accelerator_config auto_find_batch_size "
    "overwrite_output_dir metric_for_best_model greater_is_better full_determinism"
)


def _rate(conversion: Conversion, key: str, value: Any) -> None:
    if (rate := number_of(value)) is None:
        return conversion.refuse(key, "it is no number")
    return conversion.map(key, {"train.learning_rate": rate})


def _steps(conversion: Conversion, key: str, value: Any) -> None:
    if value == -1:
        return conversion.harmless(key, "num_train_epochs says how long")
    return conversion.map(key, {"train.max_steps": value})


def _warmup(conversion: Conversion, key: str, value: Any) -> None:
    """`warmup_steps` above 0 wins over `warmup_ratio`, as in transformers."""
    if key == "warmup_ratio" and conversion.get("warmup_steps"):
        return conversion.harmless(key, "warmup_steps wins over it")
    if key == "warmup_steps" and value == 0 and conversion.get("warmup_ratio"):
        return conversion.harmless(key, "warmup_ratio says it")
    if not is_number(value) or value < 0 or (key == "warmup_ratio" and value >= 1):
        return conversion.refuse(key, "it is no number of steps, or no share of them")
    return conversion.map(key, {"train.warmup_steps": value})


def _schedule(conversion: Conversion, key: str, value: Any) -> None:
    """The arguments of the schedule, a mapping or its JSON."""
    told = json.loads(value) if isinstance(value, str) else value
    if not isinstance(told, Mapping):
        return conversion.refuse(key, "it is a mapping of arguments of the schedule")
    return conversion.map(key, {"train.lr_scheduler_kwargs": dict(told)})


def _bf16(conversion: Conversion, key: str, value: Any) -> None:
    if value not in (True, False):
        return conversion.refuse(key, "it is true or false")
    return conversion.map(key, {"train.bf16": value})


def _tf32(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.get("use_cpu") or value not in (True, False):
        return conversion.harmless(key, "TF32 is a mode of GPUs")
    return conversion.map(key, {"train.tf32": value})


def _checkpointing(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.map(key, {"train.activation_checkpointing": value not in (False, "False")})


def _logging(conversion: Conversion, key: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        return conversion.harmless(key, "rows of the loss are counted in whole steps: train.logging_steps")
    return conversion.map(key, {"train.logging_steps": value})


def holds_out(conversion: Conversion) -> bool:
    """Whether the source evaluates on rows of its own."""
    held = any(conversion.get(key) for key in ("val_size", "eval_dataset"))
    return held or conversion.get("eval_strategy", conversion.get("evaluation_strategy", "no")) in ("steps", "epoch")


def _evaluation(conversion: Conversion, key: str, value: Any) -> None:
    strategy = conversion.get("eval_strategy", conversion.get("evaluation_strategy", "no"))
    if not holds_out(conversion) or value in ("no", False):
        return conversion.harmless(key, "nothing is evaluated during the training")
    if key == "eval_steps":
        if strategy != "steps" or not isinstance(value, int):
            return conversion.harmless(key, "eval_strategy says when it is evaluated")
        return conversion.map(key, {"train.eval_strategy": "steps", "train.eval_steps": value})
    if value == "steps" and not isinstance(conversion.get("eval_steps"), int):
        steps = conversion.get("logging_steps", 500)
        return conversion.map(key, {"train.eval_strategy": "steps", "train.eval_steps": steps}, "as logging_steps")
    return conversion.map(key, {"train.eval_strategy": value})


def _report(conversion: Conversion, key: str, value: Any) -> None:
    names = [str(name) for name in (value if isinstance(value, list) else [value])]
    if names == ["none"]:
        return conversion.map(key, {"track.wandb": None, "track.tensorboard": False})
    names = ["wandb", "tensorboard"] if names == ["all"] else names
    settings = {path: told for name in names for path, told in TRACKERS.get(name, {}).items()}
    if not settings:
        return conversion.harmless(key, "trackers are W&B, MLflow and TensorBoard (track)")
    return conversion.map(key, settings)


def _name(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.get("report_to") in (None, "none", ["none"]):
        return conversion.harmless(key, "the file's name is the experiment's")
    return conversion.map(key, {"track.wandb.name": str(value)})


def _cpu(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True:
        return conversion.harmless(key, "it is off")
    return conversion.map(key, {"scale.resources_per_worker": {"CPU": 1}})


def _smoothing(conversion: Conversion, key: str, value: Any) -> None:
    if value == 0:
        return conversion.harmless(key, "it is off")
    return conversion.refuse(key, "the loss of answers is not smoothed here")


def _from_checkpoint(conversion: Conversion, key: str, value: Any) -> None:
    if value in (False, "False"):
        return conversion.harmless(key, "it is off")
    return conversion.refuse(key, "its checkpoint is not ours; go on from an adapter with adapter.from")


def _optim_args(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.map(key, {"train.optim_args": str(value)})


def modules(conversion: Conversion, key: str, value: Any) -> None:
    """The layers that get an adapter: `all`, a text with commas, or a list."""
    if value in ("all", "all-linear", ["all-linear"], ["all"]):
        return conversion.map(key, {"adapter.target_modules": "all-linear"})
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return conversion.refuse(key, "it is all, or a list of names")
    return conversion.map(key, {"adapter.target_modules": names})


def _told(why: str) -> Function:
    return lambda conversion, key, value: conversion.harmless(key, why)


ARGUMENTS_FUNCTIONS: dict[str, Function] = {
    **dict.fromkeys(("learning_rate", "lr"), _rate),
    **dict.fromkeys(("warmup_steps", "warmup_ratio"), _warmup),
    **dict.fromkeys(("eval_strategy", "evaluation_strategy", "eval_steps"), _evaluation),
    **dict.fromkeys(("use_cpu", "no_cuda"), _cpu),
    **dict.fromkeys(("metric_for_best_model", "greater_is_better"), _told("the best is by the method's own metric")),
    "max_steps": _steps,
    "bf16": _bf16,
    "tf32": _tf32,
    **dict.fromkeys(("gradient_checkpointing", "activation_checkpointing"), _checkpointing),
    "logging_steps": _logging,
    "logging_first_step": _told("it prints one row more"),
    "lr_scheduler_type": choose({name: name for name in SCHEDULES}, "train.lr_scheduler_type",
                                f"ftlib has {', '.join(SCHEDULES)}"),
    "lr_scheduler_kwargs": _schedule,
    "optim": optimizer,
    "optim_args": _optim_args,
    "report_to": _report,
    "run_name": _name,
    "project": _told("W&B's project is track.wandb.project"),
    "output_dir": _told("each run has a folder of its own in storage"),
    "label_smoothing_factor": _smoothing,
    "resume_from_checkpoint": _from_checkpoint,
    "data_seed": _told("rows are met in an order that train.seed draws"),
    "deepspeed": scale.deepspeed,
    **dict.fromkeys(("fsdp", "fsdp_config"), scale.fsdp),
}  # fmt: skip
