"""`train:` of the experiment as the arguments that transformers and TRL take."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers.training_args import OptimizerNames

from ftlib.config import Experiment
from ftlib.errors import ConfigError, TrialError, nearest
from ftlib.models.base import bare_model, check_quantization, new_tokens
from ftlib.models.rounded import check_rounding
from ftlib.models.strategies import computes_in_bf16, strategy_of

# Beginnings of `train.optim` -> the package behind it; what else ends in 8bit or 32bit is bitsandbytes'.
PACKAGES = {
    "galore": "galore_torch",
    "apollo": "apollo_torch",
    "lomo": "lomo_optim",
    "adalomo": "lomo_optim",
    "grokadamw": "grokadamw",
    "schedule_free": "schedulefree",
    "stable_adamw": "optimi",
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "adamw_torch_xla": "torch_xla",
    "adamw_torch_npu": "torch_npu",
    "adamw_anyprecision": "torchdistx",
    "ademamix": "bitsandbytes",
}
PROJECTORS = {
    "galore": "galore_torch.galore_projector.GaLoreProjector",
    "apollo": "apollo_torch.random_projector.GradientProjector",
}
# Kernels that exist for CUDA alone; everything else was seen to train on a CPU, bitsandbytes' too.
GPU_ONLY = {
    "galore_adamw_8bit": "galore_adamw",
    "galore_adamw_8bit_layerwise": "galore_adamw_layerwise",
    "adalomo": "lomo",
}
UNGROUPED = ("galore", "apollo", "lomo", "adalomo", "muon", "dion")  # make their own groups, or a step a weight
BROKEN = {"galore_adafactor_layerwise": "galore_adafactor"}  # transformers gives it two learning rates


def check_arguments(experiment: Experiment) -> None:
    """Raises ConfigError for what transformers would refuse only in the trial."""
    names = [str(name.value) for name in OptimizerNames]
    if experiment.train.optim not in names:
        raise ConfigError(
            f"train.optim is '{experiment.train.optim}', which transformers does not know."
            f"{nearest(experiment.train.optim, names) or ' Known: ' + ', '.join(names) + '.'}"
        )
    check_quantization(experiment.model)
    check_optimizer(experiment)
    check_tokens(experiment)
    if experiment.train.qat is not None:
        check_rounding(bare_model(experiment.model), experiment.train.qat)


def check_tokens(experiment: Experiment) -> None:
    """Raises ConfigError for tokens that the vocabulary lacks, where their embeddings would not be trained."""
    frozen = experiment.adapter is not None or getattr(experiment.method, "freeze", "none") != "none"
    new = new_tokens(experiment.model) if frozen else []
    if new:
        part = f"adapter.type '{experiment.adapter.type}'" if experiment.adapter else "method.freeze"
        raise ConfigError(
            f"model.special_tokens: '{new[0]}' is new to the vocabulary, and {part} leaves the embeddings as they "
            "are, so "
            "it would stay a random vector: use adapter: null, or a token that the vocabulary has."
        )


def check_optimizer(experiment: Experiment) -> None:
    """Raises ConfigError for an optimizer whose package is missing, or that cannot train what is to be trained."""
    train, adapter = experiment.train, experiment.adapter
    package = package_of(train.optim)
    if package is not None and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"train.optim '{train.optim}' needs the package {package}: pip install {package.replace('_', '-')}, "
            "or use train.optim: adamw_torch."
        )
    other = BROKEN.get(train.optim) or (None if experiment.scale.use_gpu else GPU_ONLY.get(train.optim))
    if other is not None:
        why = "does not start in transformers" if train.optim in BROKEN else "needs a GPU"
        raise ConfigError(f"train.optim '{train.optim}' {why}: use train.optim: {other}.")
    own = "lora_fa" if getattr(adapter, "lora_fa", False) else "lora_plus_ratio"
    if getattr(adapter, own, None) and train.optim != "adamw_torch":
        raise ConfigError(f"train.optim: adapter.{own} brings an AdamW of its own: use train.optim: adamw_torch.")
    projects = train.optim.startswith(("galore", "apollo"))
    if projects and adapter is not None and adapter.saves == "adapter":
        raise ConfigError(
            f"train.optim '{train.optim}' projects the gradients of whole matrices, and adapter.type '{adapter.type}' "
            "has small ones of its own: use adapter: null, or train.optim: adamw_torch."
        )
    if projects != (train.optim_target_modules is not None):
        raise ConfigError(
            f"train.optim_target_modules: '{train.optim}' "
            + ("needs it: for example all-linear." if projects else "has no use for it: drop it.")
        )
    if train.layer_lr_decay < 1 and train.optim.startswith(UNGROUPED):
        raise ConfigError(
            f"train.layer_lr_decay: '{train.optim}' takes no groups of weights: use train.optim: adamw_torch, or 1.0."
        )
    if "layerwise" in train.optim and (train.gradient_accumulation_steps > 1 or experiment.scale.num_workers > 1):
        raise ConfigError(
            f"train.optim '{train.optim}' updates each layer as soon as its gradient is there: use "
            f"train.optim: {train.optim.removesuffix('_layerwise')} with several workers or "
            "gradient_accumulation_steps."
        )


def package_of(optim: str) -> str | None:
    """The package that an optimizer of `TrainingArguments` comes from, where it is not torch or transformers."""
    for start, package in PACKAGES.items():
        if optim.startswith(start):
            return package
    return "bitsandbytes" if optim.endswith(("8bit", "32bit")) or "bnb" in optim else None


def allow_state(optim: str) -> None:
    """GaLore and APOLLO keep an object in `optimizer.pt`, which torch reads back only when its class is named."""
    for start, place in PROJECTORS.items():
        if optim.startswith(start):
            module, _, name = place.rpartition(".")
            torch.serialization.add_safe_globals([getattr(importlib.import_module(module), name)])


def training_arguments(experiment: Experiment, output_dir: Path) -> dict[str, Any]:
    """Keyword arguments for `TrainingArguments` and its TRL children.

    Evaluating and saving are off: the trial's own callback decides when (rungs, epochs, the end). Trackers are off:
    they follow `metrics.jsonl`. Raises TrialError when a GPU was asked for and torch has none.
    """
    train = experiment.train
    use_gpu = experiment.scale.use_gpu
    if use_gpu and not torch.cuda.is_available():  # transformers would train on the CPU without a word
        raise TrialError(
            "scale.resources_per_worker asks for a GPU, but torch sees none in the worker: install a CUDA build of "
            "torch, "
            "or leave GPU out."
        )
    allow_state(train.optim)
    return {
        "output_dir": str(output_dir),
        "learning_rate": train.learning_rate,
        "num_train_epochs": train.num_train_epochs,
        "max_steps": train.max_steps or -1,
        "per_device_train_batch_size": train.per_device_train_batch_size,
        "per_device_eval_batch_size": train.per_device_eval_batch_size,
        "gradient_accumulation_steps": train.gradient_accumulation_steps,
        "lr_scheduler_type": train.lr_scheduler_type,
        "lr_scheduler_kwargs": train.schedule_arguments,
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "optim": train.optim,
        "optim_args": train.optim_args,
        "optim_target_modules": train.optim_target_modules,
        "neftune_noise_alpha": train.neftune_noise_alpha,
        "adam_beta1": train.adam_beta1,
        "adam_beta2": train.adam_beta2,
        "adam_epsilon": train.adam_epsilon,
        "bf16": computes_in_bf16(experiment),
        "tf32": train.tf32,
        "dataloader_num_workers": train.dataloader_num_workers,
        "activation_checkpointing": train.activation_checkpointing,
        "logging_steps": train.logging_steps,
        "logging_nan_inf_filter": False,  # by default transformers hides a NaN loss
        "seed": train.seed,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not use_gpu,
        "dataloader_pin_memory": use_gpu,
        "include_num_input_tokens_seen": "non_padding",
        "prediction_loss_only": True,
        **strategy_of(experiment).arguments(),
    }
