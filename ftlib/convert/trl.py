"""The keys of `trl sft --config FILE` and its sisters (TRL 1.16): what each becomes, and what TRL does of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlib.config.foreign import of_tool
from ftlib.config.foreign import trl as words
from ftlib.convert.conversion import Conversion, Function
from ftlib.convert.first_row import first_row
from ftlib.convert.kernels import attention
from ftlib.convert.table import Table, choose
from ftlib.convert.trainer import ARGUMENTS, ARGUMENTS_ALSO, ARGUMENTS_FUNCTIONS, holds_out, modules
from ftlib.errors import InputError, nearest

PLAIN = {
    **ARGUMENTS,
    "model_name_or_path": "model.name_or_path",
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "dtype": "model.dtype",
    "torch_dtype": "model.dtype",
    "eos_token": "model.special_tokens.eos_token",
    "pad_token": "model.special_tokens.pad_token",
    "max_length": "data.max_length",
    "max_seq_length": "data.max_length",
}
ADAPTER = {
    "lora_r": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "use_rslora": "adapter.use_rslora",
    "use_dora": "adapter.use_dora",
    "lora_modules_to_save": "adapter.modules_to_save",
    "lora_target_parameters": "adapter.target_parameters",
}
METHODS = ("sft", "dpo", "kto", "reward", "grpo", "rloo")
# Keys that tell the subcommand where nobody says it; the most telling first.
TELLING = {
    "grpo": {"num_generations", "reward_funcs", "reward_model_name_or_path", "scale_rewards", "max_completion_length"},
    "kto": {"desirable_weight", "undesirable_weight"},
    "reward": {"center_rewards_coefficient"},
    "dpo": {"beta", "loss_weights", "precompute_ref_log_probs", "ref_model_mixup_alpha", "f_divergence_type"},
}
# What TRL does where its file says nothing, of each subcommand.
RATES = {"sft": 2e-5, "dpo": 1e-6, "kto": 1e-6, "reward": 1e-4, "grpo": 1e-6, "rloo": 1e-6}
DEFAULTS: dict[str, Any] = {
    "model.dtype": "float32",
    "data.max_length": 1024,
    "train.num_train_epochs": 3.0,
    "train.lr_scheduler_type": "linear",
    "train.optim": "adamw_torch_fused",
    "train.bf16": True,
    "train.activation_checkpointing": True,
}
LORA = {"adapter.r": 16, "adapter.lora_alpha": 32, "adapter.lora_dropout": 0.05}
METHOD: dict[str, dict[str, Any]] = {
    "grpo": {"method.max_completion_length": 512, "method.num_generations": 8},
    "rloo": {"method.max_completion_length": 512, "method.num_generations": 2},
}
# Of the methods that have them, under TRL's own names.
OF_METHODS: dict[str, set[str]] = {
    "beta": {"dpo", "kto", "grpo", "rloo"},
    "loss_type": {"dpo", "kto", "grpo"},
    "router_aux_loss_coef": {"sft"},
    "loss_weights": {"dpo"},
    "label_smoothing": {"dpo"},
    "f_divergence_type": {"dpo"},
    "precompute_ref_log_probs": {"dpo", "kto"},
    "desirable_weight": {"kto"},
    "undesirable_weight": {"kto"},
    "center_rewards_coefficient": {"reward"},
    "num_generations": {"grpo", "rloo"},
    "max_completion_length": {"grpo", "rloo"},
    "temperature": {"grpo", "rloo"},
    "top_p": {"grpo", "rloo"},
    "num_iterations": {"grpo", "rloo"},
    "epsilon": {"grpo", "rloo"},
    "scale_rewards": {"grpo"},
    "normalize_advantages": {"rloo"},
}
BY_ROWS = (
    "TRL writes prompts that are plain texts without a template (then data.template: none), and takes the loss on a "
    "completion alone (then data.train_on_prompt: false), on all tokens of messages and texts"
)


def method(conversion: Conversion) -> str:
    """The subcommand: as it is said (--method), or by the keys."""
    asked = conversion.asked.method
    if asked is not None and asked not in METHODS:
        raise InputError(f"--method {asked}: trl has {', '.join(METHODS)}.{nearest(asked, METHODS)}")
    return asked or next((name for name, telling in TELLING.items() if telling & set(conversion.source)), "sft")


def _told(why: str) -> Function:
    return lambda conversion, key, value: conversion.harmless(key, why)


def _of_method(conversion: Conversion, key: str, value: Any) -> None:
    found = method(conversion)
    if key == "loss_type" and found == "sft":
        return conversion.map(key, {"method.loss_type": "nll" if value == "chunked_nll" else value})
    if found not in OF_METHODS[key]:
        return conversion.harmless(key, f"'trl {found}' does not read it")
    if key == "scale_rewards" and isinstance(value, bool):
        value = "group" if value else "none"
    return conversion.map(key, {f"method.{key}": value})


def _of_adapter(conversion: Conversion, key: str, value: Any) -> None:
    if not conversion.get("use_peft"):
        return conversion.harmless(key, "use_peft is off, so all weights are trained")
    if key == "lora_target_modules":
        return modules(conversion, key, value)
    return conversion.map(key, {ADAPTER[key]: value})


def _peft(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True:
        return conversion.harmless(key, "it is off: all weights are trained")
    return conversion.map(key, {"adapter.type": "lora"})


def _bits(conversion: Conversion, key: str, value: Any) -> None:
    if value is not True:
        return conversion.harmless(key, "it is off")
    if not conversion.get("use_peft"):
        return conversion.refuse(key, "quantized weights are frozen: only an adapter is trained on them (use_peft)")
    return conversion.map(key, {"model.quantization": "nf4" if key == "load_in_4bit" else "int8"})


def _init_kwargs(conversion: Conversion, key: str, value: Any) -> None:
    known = {"dtype": "model.dtype", "torch_dtype": "model.dtype", "revision": "model.revision",
             "trust_remote_code": "model.trust_remote_code"}  # fmt: skip
    if not isinstance(value, Mapping):
        return conversion.refuse(key, "it is a mapping of arguments")
    for name, told in value.items():
        if name in known:
            conversion.map(f"{key}.{name}", {known[name]: told})
        elif name == "attn_implementation":
            attention(conversion, f"{key}.{name}", told)
        else:
            conversion.refuse(f"{key}.{name}", "use model.config for keys of config.json")
    return conversion.map(key, {}, "each of its keys is told")


def _dataset(conversion: Conversion, key: str, value: Any) -> None:
    """The data set, with the keys that say which of its rows; and that on which it evaluates."""
    split = str(conversion.get("dataset_train_split", "train"))
    path, inside = _place(conversion, str(value), split)
    reading = {"hub_config": conversion.get("dataset_config"), "hub_split": split if split != "train" else None}
    told = {name: one for name, one in reading.items() if one is not None and not inside}
    if not holds_out(conversion):
        return conversion.map(key, {"data.train": path, **{f"data.{name}": one for name, one in told.items()}})
    test = str(conversion.get("dataset_test_split", "test"))
    other, _ = _place(conversion, str(value), test)
    settings: dict[str, Any] = {"data.train": [{"path": path, **told}], "data.eval": other}
    if not inside:
        settings["data.hub_split"] = test
        settings |= {"data.hub_config": told["hub_config"]} if "hub_config" in told else {}
    return conversion.map(key, settings)


def _place(conversion: Conversion, name: str, split: str) -> tuple[str, bool]:
    """The file of a split, where the data set is a folder here, as `datasets` finds it by its name; and whether it
    is one."""
    for folder in (conversion.folder / name, Path(name)):
        if folder.is_dir():
            files = sorted(file for file in folder.iterdir() if file.stem == split or file.stem.startswith(f"{split}-"))
            if len(files) == 1:
                return str(files[0]), True
            return str(folder), True
    return name, False


def _datasets(conversion: Conversion, key: str, value: Any) -> None:
    members = value if isinstance(value, list) else [value]
    if not all(isinstance(member, Mapping) and member.get("path") for member in members):
        return conversion.refuse(key, "it is a list of data sets, each with a path")
    strange = [name for member in members for name in member if name not in ("path", "name", "split", "columns")]
    if strange:
        return conversion.refuse(key, f"'{strange[0]}' of a data set is not read: name a file, and give it a weight")
    found = [{"path": str(member["path"]), "hub_config": member.get("name"), "hub_split": member.get("split")}
             for member in members]  # fmt: skip
    return conversion.map(
        key, {"data.train": [{name: one for name, one in member.items() if one is not None} for member in found]}
    )


def _text_field(conversion: Conversion, key: str, value: Any) -> None:
    if value == "text":
        return conversion.harmless(key, "it is the name that ftlib reads")
    row = first_row(_first_set(conversion))
    if row is not None and value not in row:
        return conversion.harmless(key, "the rows have no such column")
    return conversion.map(key, {"data.columns": {"text": value}}, "where the rows are texts", look=row is None)


def _first_set(conversion: Conversion) -> str:
    train = conversion.at("data.train")
    return str(train[0]["path"] if isinstance(train, list) and train else train or "")


def _loss_on(conversion: Conversion, key: str, value: Any) -> None:
    if method(conversion) != "sft":
        return conversion.harmless(key, "it is for sft alone")
    if value is True:
        return conversion.map(key, {"data.train_on_prompt": False})
    if key == "completion_only_loss":
        return conversion.map(key, {"data.train_on_prompt": True})
    return conversion.harmless(key, "it is off: see data.train_on_prompt")


def _packing(conversion: Conversion, key: str, value: Any) -> None:
    if method(conversion) != "sft" or value is not True:
        return conversion.harmless(key, "it is off")
    if conversion.get("packing_strategy", "bfd") == "wrapped":
        return conversion.refuse(key, "the packing of ftlib is bfd, which cuts no row that fits")
    return conversion.map(key, {"data.packing": True})


def _rewards(conversion: Conversion, key: str, value: Any) -> None:
    weights = conversion.get("reward_weights")
    names = value if isinstance(value, list) else [value]
    weights = weights if isinstance(weights, list) and len(weights) == len(names) else [1.0] * len(names)
    if key == "reward_model_name_or_path":
        rewards = [{"function": "reward_model", "weight": weights[0], "arguments": {"model": str(value)}}]
        return conversion.map(key, {"method.rewards": rewards})
    rewards = [
        {"function": _function(str(name)), "weight": weight} for name, weight in zip(names, weights, strict=True)
    ]
    return conversion.map(key, {"method.rewards": rewards})


def _function(name: str) -> str:
    """TRL's own rewards by their places, and yours: `module.function` there, `module:function` here."""
    module, _, function = name.rpartition(".")
    return f"{module}:{function}" if module else f"trl.rewards:{name}"


def _template(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.refuse(key, "a template of another model: copy that model's chat_template into a tokenizer, and "
                                  "name it in model.tokenizer")  # fmt: skip


FUNCTIONS: dict[str, Function] = {
    **ARGUMENTS_FUNCTIONS,
    **dict.fromkeys(OF_METHODS, _of_method),
    **dict.fromkeys((*ADAPTER, "lora_target_modules"), _of_adapter),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), _bits),
    **dict.fromkeys(("completion_only_loss", "assistant_only_loss"), _loss_on),
    **dict.fromkeys(("reward_funcs", "reward_model_name_or_path"), _rewards),
    **dict.fromkeys(("dataset_config", "dataset_train_split", "dataset_test_split"), _told("dataset_name reads it")),
    "use_peft": _peft,
    "model_init_kwargs": _init_kwargs,
    "attn_implementation": attention,
    "dataset_name": _dataset,
    "datasets": _datasets,
    "dataset_text_field": _text_field,
    "packing": _packing,
    "packing_strategy": _told("packing reads it"),
    "reward_weights": _told("each reward has its weight"),
    "chat_template_path": _template,
    "truncation_mode": choose({"keep_start": "cut"}, "data.long_rows", "ftlib keeps the beginning of a row"),
    "bnb_4bit_quant_type": choose({"nf4": "nf4"}, "model.quantization", "4 bits are nf4 here"),
    "use_bnb_nested_quant": _told("nf4 with its constants quantized too is what model.quantization: nf4 means"),
    "env": lambda conversion, key, value: conversion.refuse(key, "set them where you start ftlib"),
    "max_prompt_length": lambda conversion, key, value: conversion.refuse(
        key, "prompt and answer have one length together (data.max_length)"
    ),
    "lora_task_type": _told("the method says the task"),
}
NULL_SAYS = {"max_length": "ftlib cuts rows to a length: set data.max_length above the longest (ftlib check tells it)"}


def _finish(conversion: Conversion) -> None:
    found = method(conversion)
    conversion.default("method.type", found)
    for path, value in {**DEFAULTS, **METHOD.get(found, {})}.items():
        conversion.default(path, value)
    conversion.default("train.learning_rate", RATES[found])
    if conversion.get("use_peft"):
        for path, value in LORA.items():
            conversion.default(path, value)
        if conversion.at("adapter.target_modules") is None:
            conversion.put(
                "adapter.target_modules", ["q_proj", "v_proj"], "PEFT's default for most models: look at this"
            )
    else:
        conversion.tree["adapter"] = None
    if conversion.at("data.eval") is None:
        conversion.default("data.eval_split", 0)
    conversion.default("train.eval_strategy", "end")
    conversion.default("track.wandb", None)
    _by_rows(conversion, found)
    for key in NULL_SAYS:
        if key in conversion.source and conversion.source[key] is None:
            conversion.refuse(key, NULL_SAYS[key])
    if conversion.at("data.train") is None:
        conversion.refuse("dataset_name", "the file names no rows to train on: set data.train")


def _by_rows(conversion: Conversion, found: str) -> None:
    """What TRL does by the rows: it writes turns by the model's template and texts as they are, and takes the loss of
    `sft` on a completion alone where there is one."""
    row = first_row(_first_set(conversion))
    if row is None:
        if found == "sft":
            conversion.default("data.train_on_prompt", True)
        conversion.map("dataset_name", {}, f"its rows are not here. {BY_ROWS}", look=True)
        return
    because = f"by its first row: {', '.join(map(str, row))}"
    if isinstance(row.get("prompt"), str):
        conversion.put("data.template", "none", because)
    if found == "sft" and conversion.at("data.train_on_prompt") is None:
        conversion.put("data.train_on_prompt", not {"prompt", "completion"} <= set(row), because)


TABLE = Table(
    "TRL",
    PLAIN,
    FUNCTIONS,
    _finish,
    foreign=(of_tool(words),),
    also=ARGUMENTS_ALSO + " dataloader_persistent_workers",
)
