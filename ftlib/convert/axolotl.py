"""Axolotl's keys (its schemas of July 2026): what each becomes, and what Axolotl does where its file says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.config.foreign import axolotl as words
from ftlib.config.foreign import of_tool
from ftlib.convert import axolotl_data as data
from ftlib.convert import axolotl_rl as rl
from ftlib.convert import scale
from ftlib.convert.conversion import Conversion, Function
from ftlib.convert.kernels import attention
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
    "seed": "train.seed",
    "use_tensorboard": "track.tensorboard",
    "mlflow_tracking_uri": "track.mlflow.uri",
    "mlflow_experiment_name": "track.mlflow.experiment",
    "wandb_project": "track.wandb.project",
    "wandb_entity": "track.wandb.entity",
    "wandb_name": "track.wandb.name",
    "wandb_mode": "track.wandb.mode",
}
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
}
ALL_WEIGHTS = "'adapter' is empty, so all weights are trained, and Axolotl does not read it"
SCHEDULES = {name: name for name in ("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt")}
# Plugins that change how fast a step is, and not what it learns.
PLUGINS = ("CutCrossEntropyPlugin", "LigerPlugin", "KernelsPlugin", "ExpertParallelPlugin", "SwanLabPlugin",
           "SpectrumPlugin", "DenseMixerPlugin", "DiffusionPlugin", "EBFTPlugin", "KDPlugin")  # fmt: skip
LANGUAGE = ("model.language_model", "language_model", "lm_head", "embed_tokens", "model.embed_tokens")
NOT_TEXT = "ftlib trains on text, and a processor is for images or sound"


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


def _modules_to_save(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.get("adapter") is None:
        return conversion.harmless(key, ALL_WEIGHTS)
    return conversion.refuse(key, words_of(key))


def _bits(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True:
        return conversion.harmless(key, "it is off")
    if conversion.get("adapter") is None:
        return conversion.refuse(key, "quantized weights are frozen: only an adapter is trained on them")
    return conversion.map(key, {"model.quantization": "nf4" if key == "load_in_4bit" else "int8"})


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
    if set(value) == {"output_router_logits"} and conversion.get("adapter") is None:
        return conversion.refuse(key, "the loss of a router of experts is not added here")
    return conversion.map(key, {f"model.config.{name}": told for name, told in value.items()})


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
    return conversion.refuse(key, words_of(key))


def _fan_in(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.harmless(key, "PEFT sets it by the class of each layer")


def _mistral(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True:
        return conversion.harmless(key, "it is off")
    told = "the same model's tokenizer.json and its chat template are read; 'ftlib check' prints what they write"
    return conversion.harmless(key, told, look=True)


def _on_inputs(conversion: Conversion, key: str, value: Any) -> None:
    if rl.method(conversion) != "sft":
        return conversion.harmless(key, "this method does not read it")
    return conversion.map(key, {"data.train_on_prompt": value})


def _not_text(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.refuse(key, NOT_TEXT)


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


def words_of(key: str) -> str:
    """The reason for which an experiment refuses a key."""
    return of_tool(words)[key].text


FUNCTIONS: dict[str, Function] = {
    **dict.fromkeys(ADAPTER, _of_adapter),
    **dict.fromkeys(("lora_target_linear", "lora_target_modules"), _targets),
    **dict.fromkeys(("lora_modules_to_save", "lora_target_parameters"), _modules_to_save),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), _bits),
    **dict.fromkeys(("bf16", "bfloat16"), _precision),
    **dict.fromkeys(("torch_dtype", "float16", "float32"), _dtype),
    **dict.fromkeys(("warmup_steps", "warmup_ratio"), _warmup),
    **dict.fromkeys(("evals_per_epoch", "eval_steps", "eval_strategy", "evaluation_strategy"), _evaluation),
    **dict.fromkeys(("special_tokens", "tokens"), _special_tokens),
    **dict.fromkeys(("base_model_config", "tokenizer_config"), _same_model),
    **dict.fromkeys(("model_config", "overrides_of_model_config"), _model_config),
    **dict.fromkeys(("processor_type", "freeze_mm_modules", "image_size", "image_resize_algorithm"), _not_text),
    **dict.fromkeys(("shuffle_merged_datasets", "shuffle_before_merging_datasets"), _keeps_order),
    **dict.fromkeys(("use_wandb", "use_mlflow"), _tracker),
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
    **dict.fromkeys(("fsdp", "fsdp_config"), scale.fsdp),
    **dict.fromkeys(("model_quantization_config", "model_quantization_config_kwargs"), _dequantized),
    **dict.fromkeys(("tensor_parallel_size", "context_parallel_size", "sequence_parallel_degree"), scale.one_row),
    "adapter": _adapter,
    "unfrozen_parameters": _unfrozen,
    "lora_fan_in_fan_out": _fan_in,
    "tokenizer_use_mistral_common": _mistral,
    "train_on_inputs": _on_inputs,
    "full_finetune": lambda conversion, key, value: conversion.harmless(key, "adapter says it"),
    "bnb_config_kwargs": _bnb,
    "tf32": _tf32,
    "learning_rate": _rate,
    "batch_size": _batch_size,
    "optimizer": optimizer,
    "optim_args": lambda conversion, key, value: _optim_args(conversion, key, value),
    "lr_scheduler": choose(SCHEDULES, "train.lr_scheduler_type", f"ftlib has {', '.join(SCHEDULES)}"),
    "gradient_checkpointing": _checkpointing,
    "early_stopping_patience": _patience,
    "plugins": _plugins,
    "peft": _loftq,
    "wandb_log_model": _log_model,
    "deepspeed": scale.deepspeed,
    "ray_num_workers": _workers,
    "use_ray": lambda conversion, key, value: conversion.harmless(key, "ftlib is on Ray anyway"),
    "ddp": lambda conversion, key, value: conversion.harmless(key, "--gpus says on how many GPUs you train"),
    "reinit_weights": lambda conversion, key, value: conversion.map(
        key, {"model.init": "random" if value else "pretrained"}
    ),
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
    if conversion.get("adapter") is None:
        conversion.tree["adapter"] = None
    rl.finish(conversion)
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
