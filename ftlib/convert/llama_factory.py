"""LLaMA-Factory's keys (its hparams of August 2026): what each becomes, and its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.config.foreign import llama_factory as words
from ftlib.config.foreign import of_tool
from ftlib.config.foreign import trl as arguments
from ftlib.convert import llama_factory_data as data
from ftlib.convert import scale
from ftlib.convert.conversion import Conversion, Function
from ftlib.convert.kernels import attention
from ftlib.convert.optimizers import optimizer
from ftlib.convert.table import Table, choose
from ftlib.convert.trainer import ARGUMENTS, ARGUMENTS_ALSO, ARGUMENTS_FUNCTIONS, modules

PLAIN = {
    **ARGUMENTS,
    "model_name_or_path": "model.name_or_path",
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "adapter_name_or_path": "adapter.from",
    "cutoff_len": "data.max_length",
    "train_on_prompt": "data.train_on_prompt",
    "val_size": "data.eval_split",
    "max_samples": "data.max_rows",
}
LORA = {
    "lora_rank": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "loraplus_lr_ratio": "adapter.lora_plus_ratio",
    "use_rslora": "adapter.use_rslora",
    "use_dora": "adapter.use_dora",
}
OFT = {"oft_rank": "adapter.r", "oft_block_size": "adapter.oft_block_size", "module_dropout": "adapter.module_dropout"}
STAGES = {"sft": "sft", "pt": "pretrain", "rm": "reward", "kto": "kto", "dpo": "dpo"}
LOSSES = {"sigmoid": "sigmoid", "hinge": "hinge", "ipo": "ipo"}
TYPES_OF_ITS_OWN = ("orpo", "simpo")
PROJECTORS = ("galore", "apollo")
# Of a projector: the end of LLaMA-Factory's key, and the argument's name in transformers.
PROJECTED = {"rank": "rank", "update_interval": "update_proj_gap", "scale": "scale", "proj_type": "proj_type",
             "proj": "proj", "scale_type": "scale_type", "scale_front": "scale_front"}  # fmt: skip
PROJECTOR_DEFAULTS = {
    "galore": {"rank": 16, "update_proj_gap": 200, "scale": 2.0, "proj_type": "std"},
    "apollo": {"rank": 16, "update_proj_gap": 200, "scale": 32.0, "proj": "random", "proj_type": "std",
               "scale_type": "channel", "scale_front": False},
}  # fmt: skip


def tuning(conversion: Conversion) -> str:
    """How the model is trained: lora, full, freeze or oft."""
    return str(conversion.get("finetuning_type", "lora"))


def method(conversion: Conversion) -> str:
    """The method by stage and loss."""
    loss = str(conversion.get("pref_loss", "sigmoid"))
    stage = str(conversion.get("stage", "sft"))
    if stage == "dpo" and loss in TYPES_OF_ITS_OWN:
        return loss
    return STAGES.get(stage, "")


def _stage(conversion: Conversion, key: str, value: Any) -> None:
    if (found := method(conversion)) == "":
        return conversion.refuse(key, "PPO needs four models at once: use method.type: grpo or rloo")
    note = "a score on the last token, with a head of its own" if found == "reward" else ""
    return conversion.map(key, {"method.type": found}, note)


def _tuning(conversion: Conversion, key: str, value: Any) -> None:
    kinds = {"lora": "lora", "oft": "oft", "freeze": "layers"}
    if value == "full":
        conversion.tree["adapter"] = None
        return conversion.map(key, {"adapter": None}, "all weights")
    if value not in kinds:
        return conversion.refuse(key, "it is lora, oft, freeze or full")
    return conversion.map(key, {"adapter.type": kinds[value]})


def _of_tuning(kind: str, paths: dict[str, str]) -> Function:
    def function(conversion: Conversion, key: str, value: Any) -> None:
        if tuning(conversion) != kind:
            return conversion.harmless(key, f"it is read with finetuning_type: {kind} alone")
        return conversion.map(key, {paths[key]: value})

    return function


def _targets(conversion: Conversion, key: str, value: Any) -> None:
    if tuning(conversion) != key.partition("_")[0]:
        return conversion.harmless(key, f"it is read with finetuning_type: {key.partition('_')[0]} alone")
    return modules(conversion, key, value)


def _freeze(conversion: Conversion, key: str, value: Any) -> None:
    if tuning(conversion) != "freeze":
        return conversion.harmless(key, "it is read with finetuning_type: freeze alone")
    if key == "freeze_trainable_modules":
        return conversion.harmless(key, "all modules of a layer are trained") if value == "all" else conversion.refuse(
            key, "all modules of a layer are trained, or none")  # fmt: skip
    if not isinstance(value, int) or value < 1:
        return conversion.refuse(key, "the last layers are trained, so it is 1 or more")
    return conversion.map(key, {"adapter.num_layers": value})


def _pissa(conversion: Conversion, key: str, value: Any) -> None:
    if key != "pissa_init":
        return conversion.harmless(key, "pissa_init says it, and an adapter is kept beside its base")
    rounds = conversion.get("pissa_iter", 16)
    return conversion.map(key, {"adapter.init_lora_weights": f"pissa_niter_{rounds}" if rounds != -1 else "pissa"})


def _bits(conversion: Conversion, key: str, value: Any) -> None:
    kinds = {4: "nf4", 8: "int8"}
    if conversion.get("quantization_method", "bnb") not in ("bnb", "bitsandbytes"):
        return conversion.refuse(key, "bitsandbytes quantizes here: quantization_method: bnb")
    if value not in kinds:
        return conversion.refuse(key, "it is 4 or 8")
    if tuning(conversion) not in ("lora", "oft"):
        return conversion.refuse(key, "quantized weights are frozen: only an adapter is trained on them")
    return conversion.map(key, {"model.quantization": kinds[value]})


def _double(conversion: Conversion, key: str, value: Any) -> None:
    if value is False and conversion.get("quantization_bit") == 4:
        return conversion.harmless(key, "nf4 quantizes its constants too; 0.4 bits a weight less, and the same within "
                                        "its rounding", look=True)  # fmt: skip
    return conversion.harmless(key, "nf4 with its constants quantized too is what model.quantization: nf4 means")


def _preference(conversion: Conversion, key: str, value: Any) -> None:
    found = method(conversion)
    if found not in ("dpo", "orpo", "simpo", "kto"):
        return conversion.harmless(key, "it is read with stage: dpo or kto alone")
    if key == "pref_beta":
        return conversion.map(key, {"method.beta": value})
    if found in TYPES_OF_ITS_OWN:
        return conversion.map(key, {"method.type": found})
    if value not in LOSSES:
        return conversion.refuse(key, f"ftlib has {', '.join([*LOSSES, *TYPES_OF_ITS_OWN])}")
    return conversion.map(key, {"method.loss_type": LOSSES[value]})


def _of_method(name: str, path: str) -> Function:
    def function(conversion: Conversion, key: str, value: Any) -> None:
        if method(conversion) != name:
            return conversion.harmless(key, f"it is for {name} alone")
        return conversion.map(key, {path: value})

    return function


def _named(conversion: Conversion, key: str, value: Any) -> None:
    """Modules that are trained whole beside the adapter: a list, or a text with commas."""
    if tuning(conversion) not in ("lora", "oft"):
        return conversion.harmless(key, "it is read with an adapter alone")
    names = value if isinstance(value, list) else [name.strip() for name in str(value).split(",")]
    if names == ["all"] or tuning(conversion) == "oft":
        return conversion.refuse(key, "name the modules, beside a LoRA: adapter.modules_to_save: [embed_tokens]")
    return conversion.map(key, {"adapter.modules_to_save": names})


def _dft(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True or method(conversion) != "sft":
        return conversion.harmless(key, "it is off, or not for this stage")
    return conversion.map(key, {"method.loss_type": "dft"})


def _router(conversion: Conversion, key: str, value: Any) -> None:
    if method(conversion) not in ("sft", "pretrain"):
        return conversion.refuse(key, "the loss of a router of experts is added to sft and pretrain alone")
    return conversion.map(key, {"method.router_aux_loss_coef": value})


def _mixed(conversion: Conversion, key: str, value: Any) -> None:
    """Megatron's name for what it computes in."""
    kinds = {"bf16_mixed": True, "bf16": True, "no": False, "fp32": False}
    if value not in kinds:
        return conversion.refuse(key, f"it is one of {', '.join(kinds)}")
    return conversion.map(key, {"train.bf16": kinds[value]})


def _experts_apart(conversion: Conversion, key: str, value: Any) -> None:
    if value in (0, 1):
        return conversion.harmless(key, "it is off")
    return conversion.refuse(
        key, "experts stand where the rest of the model stands: set gradient_accumulation_steps so that a step has as "
             "many rows as there, and drop it")  # fmt: skip


def _ftx(conversion: Conversion, key: str, value: Any) -> None:
    if method(conversion) != "dpo" or not value:
        return conversion.harmless(key, "it is for dpo alone, above 0")
    losses = [LOSSES.get(str(conversion.get("pref_loss", "sigmoid")), "sigmoid"), "sft"]
    return conversion.map(key, {"method.loss_type": losses, "method.loss_weights": [1.0, value]})


def _checkpointing(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.map(key, {"train.activation_checkpointing": value is not True})


def _pure(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True:
        return conversion.harmless(key, "it is off")
    return conversion.map(key, {"model.dtype": "bfloat16", "train.bf16": True})


def _projector(conversion: Conversion, key: str, value: Any) -> None:
    """GaLore and APOLLO: one key turns it on, and the others are its arguments."""
    name = next(one for one in PROJECTORS if one in key)
    if not conversion.get(f"use_{name}"):
        return conversion.harmless(key, f"use_{name} is off")
    if key.startswith("use_"):
        layerwise = "_layerwise" if conversion.get(f"{name}_layerwise") else ""
        given = {argument: conversion.get(f"{name}_{end}") for end, argument in PROJECTED.items()}
        told = PROJECTOR_DEFAULTS[name] | {argument: one for argument, one in given.items() if one is not None}
        targets = conversion.get(f"{name}_target", "all")
        return conversion.map(key, {
            "train.optim": f"{name}_adamw{layerwise}",
            "train.optim_args": ", ".join(f"{argument}={one}" for argument, one in told.items()),
            "train.optim_target_modules": "all-linear" if targets == "all" else str(targets).split(","),
        })  # fmt: skip
    return conversion.map(key, {}, "it is in train.optim, optim_args and optim_target_modules")


def _optimizer(conversion: Conversion, key: str, value: Any) -> None:
    if any(conversion.get(f"use_{name}") for name in PROJECTORS):
        return conversion.harmless(key, "GaLore or APOLLO is the optimizer")
    return optimizer(conversion, key, value)


def _thinking(conversion: Conversion, key: str, value: Any) -> None:
    if value is True:
        return conversion.harmless(key, "thoughts are written as the template writes them")
    return conversion.refuse(key, "a row says it itself: chat_template_kwargs: {enable_thinking: false}")


def _do(conversion: Conversion, key: str, value: Any) -> None:
    if key == "do_train" and value is not True:
        return conversion.refuse(key, "the file trains nothing: 'ftlib evaluate' evaluates")
    return conversion.harmless(key, "each command says what is done")


def _kt(conversion: Conversion, key: str, value: Any) -> None:
    """KTransformers computes experts on the CPU: in their own type it learns the same, in 8 or 4 bits it does not."""
    config = conversion.get("kt_config", {})
    bits = config.get("kt_expert_weight_format", "bf16") if isinstance(config, Mapping) else None
    if value is not True:
        return conversion.harmless(key, "it is off")
    if bits != "bf16" or conversion.get("kt_weight_path"):
        return conversion.refuse(key, "KTransformers computes its experts in fewer bits, which ftlib does not")
    told = "the experts stand on the GPUs here: they must fit, or scale.strategy: deepspeed with offload: cpu"
    return conversion.harmless(key, told, look=True)


def _kt_detail(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.harmless(key, "use_kt says what becomes of it")


def _workers(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.asked.gpus is not None:
        return conversion.harmless(key, "--gpus says how many workers there are")
    strategy = {"scale.strategy": "ddp", "scale.num_workers": value} if value != 1 else {}
    return conversion.map(key, strategy, "workers")


FUNCTIONS: dict[str, Function] = {
    **ARGUMENTS_FUNCTIONS,
    **dict.fromkeys(LORA, _of_tuning("lora", LORA)),
    **dict.fromkeys(OFT, _of_tuning("oft", OFT)),
    **dict.fromkeys(("lora_target", "oft_target"), _targets),
    **dict.fromkeys(("freeze_trainable_layers", "freeze_trainable_modules"), _freeze),
    **dict.fromkeys(("pissa_init", "pissa_iter", "pissa_convert"), _pissa),
    **dict.fromkeys(("pref_loss", "pref_beta"), _preference),
    **dict.fromkeys(
        [f"{name}_{end}" for name in PROJECTORS for end in ("target", "layerwise", *PROJECTED)
         if f"{name}_{end}" in of_tool(words)] + [f"use_{name}" for name in PROJECTORS],
        _projector,
    ),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), _do),
    "stage": _stage,
    "additional_target": _named,
    "use_dft_loss": _dft,
    "moe_aux_loss_coef": _router,
    "mixed_precision": _mixed,
    "expert_model_parallel_size": _experts_apart,
    **dict.fromkeys(
        ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size"), scale.one_row
    ),
    "finetuning_type": _tuning,
    "quantization_bit": _bits,
    "double_quantization": _double,
    "flash_attn": attention,
    "pref_ftx": _ftx,
    "dpo_label_smoothing": _of_method("dpo", "method.label_smoothing"),
    "simpo_gamma": _of_method("simpo", "method.simpo_gamma"),
    "kto_chosen_weight": _of_method("kto", "method.desirable_weight"),
    "kto_rejected_weight": _of_method("kto", "method.undesirable_weight"),
    "disable_gradient_checkpointing": _checkpointing,
    "pure_bf16": _pure,
    "optim": _optimizer,
    "enable_thinking": _thinking,
    "use_kt": _kt,
    **dict.fromkeys([key for key in of_tool(words) if key.startswith("kt_")], _kt_detail),
    "ray_num_workers": _workers,
    "num_processes": _workers,
    "deepspeed": scale.deepspeed,
    **dict.fromkeys(("fsdp", "fsdp_config", "fsdp_transformer_layer_cls_to_wrap"), scale.fsdp),
    "train_from_scratch": choose({True: "random", False: "pretrained"}, "model.init", "it is true or false"),
    **data.FUNCTIONS,
}  # fmt: skip


def _finish(conversion: Conversion) -> None:
    """What LLaMA-Factory does where its file says nothing; its trainer is transformers'."""
    conversion.default("method.type", method(conversion) or None)
    _finish_adapter(conversion)
    for path, value in {
        "data.max_length": 2048,
        "train.learning_rate": 5e-5,
        "train.num_train_epochs": 3.0,
        "train.lr_scheduler_type": "linear",
        "train.optim": "adamw_torch_fused",
        "train.activation_checkpointing": True,
        "data.eval_split": 0 if not conversion.at("data.eval") else None,
        "train.eval_strategy": "end",
        "track.wandb": None,
    }.items():
        if value is not None or path == "track.wandb":
            conversion.default(path, value)
    if method(conversion) in TYPES_OF_ITS_OWN:
        conversion.default("method.beta", 0.1)
    if method(conversion) in ("sft", "pretrain"):
        conversion.default("method.router_aux_loss_coef", 0)
    _finish_dtype(conversion)
    data.finish(conversion, method(conversion))


def _finish_adapter(conversion: Conversion) -> None:
    if "adapter" in conversion.tree and conversion.tree["adapter"] is None:
        return
    conversion.default("adapter.type", "lora")
    if conversion.at("adapter.type") == "lora" and conversion.at("adapter.from") is None:
        conversion.default("adapter.r", 8)
        rank = conversion.at("adapter.r")
        conversion.default("adapter.lora_alpha", 2 * rank if isinstance(rank, int) else 16)
        conversion.default("adapter.target_modules", "all-linear")


def _finish_dtype(conversion: Conversion) -> None:
    """Trained weights are kept in float32, unless `pure_bf16`; frozen ones in the type that is computed in."""
    if conversion.at("model.dtype") is None:
        frozen = conversion.at("adapter.type") in ("lora", "oft")
        computed = "bfloat16" if conversion.at("train.bf16") else "float32"
        conversion.default("model.dtype", computed if frozen else "float32")


TABLE = Table(
    "LLaMA-Factory",
    PLAIN,
    FUNCTIONS,
    _finish,
    foreign=(of_tool(arguments), of_tool(words)),
    harmless={"it is read where a model writes, and not where it trains": "temperature top_p"},
    also=ARGUMENTS_ALSO + " resize_vocab use_galore",
    one_is_off="tensor_model_parallel_size pipeline_model_parallel_size context_parallel_size cp_size",
)
