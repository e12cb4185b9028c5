"""Axolotl's keys (its schemas of July 2026): what each becomes, and what Axolotl does where its file says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.config.foreign import axolotl as words
from ftlib.config.foreign import of_tool
from ftlib.convert import axolotl_data as data
from ftlib.convert import axolotl_model as model
from ftlib.convert import axolotl_rl as rl
from ftlib.convert import scale
from ftlib.convert.conversion import Conversion, Function
from ftlib.convert.optimizers import optimizer
from ftlib.convert.table import Table, choose
from ftlib.convert.values import is_number, number_of

PLAIN = {
    "base_model": "model.name_or_path",
    "revision_of_model": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "sequence_len": "data.max_length",
    "sample_packing": "data.packing",
    "micro_batch_size": "train.per_device_train_batch_size",
    "eval_batch_size": "train.per_device_eval_batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation_steps",
    "num_epochs": "train.num_train_epochs",
    "max_steps": "train.max_steps",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "adam_beta1": "train.adam_beta1",
    "adam_beta2": "train.adam_beta2",
    "adam_epsilon": "train.adam_epsilon",
    "neftune_noise_alpha": "train.neftune_noise_alpha",
    "noisy_embedding_alpha": "train.neftune_noise_alpha",
    "logging_steps": "train.logging_steps",
    "save_steps": "train.save_steps",
    "dataloader_num_workers": "train.dataloader_num_workers",
    "early_stopping_patience": "train.early_stopping_patience",
    "lr_scheduler_kwargs": "train.lr_scheduler_kwargs",
    "dataset_exact_deduplication": "data.deduplicate",
    "seed": "train.seed",
    "use_tensorboard": "track.tensorboard",
    "mlflow_tracking_uri": "track.mlflow.uri",
    "mlflow_experiment_name": "track.mlflow.experiment",
    "wandb_project": "track.wandb.project",
    "wandb_entity": "track.wandb.entity",
    "wandb_name": "track.wandb.name",
    "wandb_mode": "track.wandb.mode",
}
SCHEDULES = {
    name: name
    for name in (*("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "cosine_with_restarts"),
                 *("cosine_with_min_lr", "warmup_stable_decay"))
}  # fmt: skip
# Plugins that change how fast a step is, and not what it learns.
PLUGINS = ("CutCrossEntropyPlugin", "LigerPlugin", "KernelsPlugin", "ExpertParallelPlugin", "SwanLabPlugin",
           "SpectrumPlugin", "DenseMixerPlugin", "DiffusionPlugin", "EBFTPlugin", "KDPlugin")  # fmt: skip


def _tf32(conversion: Conversion, key: str, value: Any) -> None:
    if value not in (True, False):
        return conversion.refuse(key, "it is true or false")
    return conversion.map(key, {"train.tf32": value})


def _rate(conversion: Conversion, key: str, value: Any) -> None:
    if (rate := number_of(value)) is None:
        return conversion.refuse(key, "it is no number")
    return conversion.map(key, {"train.learning_rate": rate})


def _warmup(conversion: Conversion, key: str, value: Any) -> None:
    """`warmup_steps` wins over `warmup_ratio`; one step becomes two, as in Axolotl."""
    if key == "warmup_ratio" and conversion.get("warmup_steps") is not None:
        return conversion.harmless(key, "warmup_steps wins over it")
    if not is_number(value) or value < 0 or (key == "warmup_ratio" and value >= 1):
        return conversion.refuse(key, "it is no number of steps, or no share of them")
    note = "Axolotl rounds the share down, transformers up: one step at most" if 0 < value < 1 else ""
    return conversion.map(key, {"train.warmup_steps": 2 if value == 1 else value}, note)


def _lowest_rate(conversion: Conversion, key: str, value: Any) -> None:
    """Read with the cosine alone; nothing else of Axolotl's code reads `eta_min`."""
    if key == "eta_min":
        told = "Axolotl's code does not read it, and its rate falls to 0. A lowest rate is train.lr_scheduler_kwargs"
        return conversion.harmless(key, told, look=True)
    if conversion.get("lr_scheduler", "cosine") != "cosine" or not value:
        return conversion.harmless(key, "it is read with lr_scheduler: cosine alone, and above 0")
    if conversion.get("lr_quadratic_warmup"):
        return conversion.harmless(key, "lr_quadratic_warmup wins over it")
    conversion.comments.pop("train.lr_scheduler_type", None)
    settings = {"train.lr_scheduler_type": "cosine_with_min_lr", "train.lr_scheduler_kwargs": {"min_lr_rate": value}}
    return conversion.map(key, settings)


def _schedule(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.at("train.lr_scheduler_type") == "cosine_with_min_lr":
        return conversion.map(key, {}, "with cosine_min_lr_ratio it is cosine_with_min_lr")
    return choose(SCHEDULES, "train.lr_scheduler_type", f"ftlib has {', '.join(SCHEDULES)}")(conversion, key, value)


def _quadratic(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True or conversion.get("lr_scheduler", "cosine") != "cosine":
        return conversion.harmless(key, "it is read with lr_scheduler: cosine alone")
    return conversion.refuse(key, "the rate rises in a line during the warmup, as in transformers")


def _streamed(conversion: Conversion, key: str, value: Any) -> None:
    """Which rows come when is drawn in both; a stream draws from a buffer, ftlib from all rows."""
    return conversion.harmless(
        key, "the same rows are met, in an order that train.seed draws; they are read whole, so they must fit on the "
             "disk: data.max_rows reads fewer", look=True)  # fmt: skip


def _batch_size(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.get("gradient_accumulation_steps") is not None:
        return conversion.harmless(key, "gradient_accumulation_steps and micro_batch_size say it")
    micro = conversion.get("micro_batch_size", 1)
    if not isinstance(value, int) or not isinstance(micro, int) or value < micro or micro < 1:
        return conversion.refuse(key, "it is no multiple of micro_batch_size")
    return conversion.map(key, {"train.gradient_accumulation_steps": value // micro}, "over micro_batch_size")


def _checkpointing(conversion: Conversion, key: str, value: Any) -> None:
    """The other values keep activations elsewhere; what is learned is the same."""
    return conversion.map(key, {"train.activation_checkpointing": value is not False})


def _evaluation(conversion: Conversion, key: str, value: Any) -> None:
    """When it is evaluated; nothing is where no rows are held out."""
    if not data.holds_out(conversion):
        return conversion.harmless(key, "no rows are held out, so nothing is evaluated")
    if key == "evals_per_epoch":
        if value in (0, None):
            return conversion.map(key, {"train.eval_strategy": "end"})
        return conversion.map(key, {"train.eval_strategy": "epoch", "train.evals_per_epoch": value})
    if key == "eval_steps":
        if not isinstance(value, int):
            return conversion.refuse(key, "ftlib counts whole steps: set train.evals_per_epoch")
        return conversion.map(key, {"train.eval_strategy": "steps", "train.eval_steps": value})
    if value == "steps":
        return conversion.harmless(key, "eval_steps says how many")
    return conversion.map(key, {"train.eval_strategy": "epoch" if value == "epoch" else "end"})


def _patience(conversion: Conversion, key: str, value: Any) -> None:
    if not data.holds_out(conversion):
        return conversion.harmless(key, "no rows are held out, so nothing is waited for")
    return conversion.map(key, {PLAIN[key]: value})


def _plugins(conversion: Conversion, key: str, value: Any) -> None:
    names = [str(name).rpartition(".")[2] for name in (value if isinstance(value, list) else [value])]
    strange = [name for name in names if name not in PLUGINS]
    if strange:
        return conversion.refuse(
            key, f"{strange[0]} is code of Axolotl's or your own, and ftlib cannot know what it does"
        )
    return conversion.harmless(key, "they load Axolotl's code; what they do is said by their keys")


def _on_inputs(conversion: Conversion, key: str, value: Any) -> None:
    if rl.method(conversion) != "sft":
        return conversion.harmless(key, "this method does not read it")
    return conversion.map(key, {"data.train_on_prompt": value})


def _keeps_order(conversion: Conversion, key: str, value: Any) -> None:
    if (value is False) == (key == "shuffle_merged_datasets"):
        return conversion.refuse(key, "rows are met in an order that train.seed draws")
    return conversion.harmless(key, "rows are met in an order that train.seed draws")


def _tracker(conversion: Conversion, key: str, value: Any) -> None:
    name = key.removeprefix("use_")
    if value is not True:
        return conversion.map(key, {f"track.{name}": None})
    return conversion.harmless(key, f"track.{name} says it")


def _log_model(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.map(key, {"track.wandb.log_model": value not in (False, "false")})


def _workers(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.asked.gpus in (None, value):
        conversion.map(key, {"scale.num_workers": value, "scale.strategy": "ddp"} if value != 1 else {}, "workers")
        return
    conversion.harmless(key, "--gpus says how many workers there are")


FUNCTIONS: dict[str, Function] = {
    **dict.fromkeys(("warmup_steps", "warmup_ratio"), _warmup),
    **dict.fromkeys(("evals_per_epoch", "eval_steps", "eval_strategy", "evaluation_strategy"), _evaluation),
    **dict.fromkeys(("shuffle_merged_datasets", "shuffle_before_merging_datasets"), _keeps_order),
    **dict.fromkeys(("use_wandb", "use_mlflow"), _tracker),
    **dict.fromkeys(("fsdp", "fsdp_config"), scale.fsdp),
    **dict.fromkeys(("tensor_parallel_size", "context_parallel_size", "sequence_parallel_degree"), scale.one_row),
    "train_on_inputs": _on_inputs,
    "tf32": _tf32,
    "learning_rate": _rate,
    "batch_size": _batch_size,
    "optimizer": optimizer,
    "optim_args": lambda conversion, key, value: _optim_args(conversion, key, value),
    "lr_scheduler": _schedule,
    **dict.fromkeys(("cosine_min_lr_ratio", "eta_min"), _lowest_rate),
    "lr_quadratic_warmup": _quadratic,
    **dict.fromkeys(("streaming", "streaming_multipack_buffer_size", "pretrain_multipack_buffer_size"), _streamed),
    "gradient_checkpointing": _checkpointing,
    "early_stopping_patience": _patience,
    "plugins": _plugins,
    "wandb_log_model": _log_model,
    "deepspeed": scale.deepspeed,
    "ray_num_workers": _workers,
    "use_ray": lambda conversion, key, value: conversion.harmless(key, "ftlib is on Ray anyway"),
    "ddp": lambda conversion, key, value: conversion.harmless(key, "--gpus says on how many GPUs you train"),
    "saves_per_epoch": lambda conversion, key, value: conversion.harmless(
        key, "every evaluation is a checkpoint, and the last step is one"
    ),
    "output_dir": lambda conversion, key, value: conversion.harmless(
        key, "each run has a folder of its own in storage"
    ),
    "resume_from_checkpoint": lambda conversion, key, value: conversion.refuse(
        key, "Axolotl's checkpoint is not ours; go on from an adapter with adapter.from"
    ),
    "metric_for_best_model": lambda conversion, key, value: conversion.harmless(key, "the best is by the eval loss"),
    "greater_is_better": lambda conversion, key, value: conversion.harmless(key, "the metric says which way is better"),
    **model.FUNCTIONS,
    **data.FUNCTIONS,
    **rl.FUNCTIONS,
}


def _optim_args(conversion: Conversion, key: str, value: Any) -> None:
    told = ", ".join(f"{name}={one}" for name, one in value.items()) if isinstance(value, Mapping) else value
    return conversion.map(key, {"train.optim_args": told})


def _finish(conversion: Conversion) -> None:
    """What Axolotl does where its file says nothing."""
    for path, value in {
        "data.max_length": 512,
        "data.long_rows": "drop",
        "train.per_device_train_batch_size": 1,
        "train.lr_scheduler_type": "cosine",
        "train.optim": "adamw_torch_fused",
        "train.warmup_steps": 0.03,
        "track.wandb": None,
    }.items():
        conversion.default(path, value)
    conversion.default("train.per_device_eval_batch_size", conversion.at("train.per_device_train_batch_size"))
    if conversion.at("model.dtype") is None:
        conversion.default("model.dtype", "float32")
    if conversion.get("adapter") is None and conversion.at("adapter.type") is None:
        conversion.tree["adapter"] = None
    rl.finish(conversion)
    if conversion.at("method.type") in ("sft", "pretrain") and not model.adds_router_loss(conversion):
        conversion.default("method.router_aux_loss_coef", 0)
    data.finish(conversion)


TABLE = Table(
    "Axolotl",
    PLAIN,
    FUNCTIONS,
    _finish,
    foreign=(of_tool(words),),
    harmless={
        "Axolotl does not read it: its key is adam_epsilon": "adam_eps",
        "Axolotl does not read it: its key is context_parallel_size": "context_parapllel_size",
    },
)
