"""Unsloth's scripts and notebooks: the arguments of the calls by which they load, adapt and train a model.

A script is code, and ftlib does not run it. So a function of the script that writes the rows cannot be converted: it is
refused by its name, and what it makes is to be saved as a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftlib.config.foreign import of_tool
from ftlib.config.foreign import trl as words
from ftlib.convert import calls, source
from ftlib.convert.calls import Call, Unknown, is_known
from ftlib.convert.conversion import Conversion, Function
from ftlib.convert.table import Table
from ftlib.convert.trainer import ARGUMENTS, ARGUMENTS_ALSO, ARGUMENTS_FUNCTIONS, modules
from ftlib.convert.trl import LORA, METHOD, METHODS, OF_METHODS, RATES
from ftlib.errors import InputError

ROUNDED = "train.qat rounds weights alone, int4 in groups of 32, and no activations: set it where that is meant"
LOADERS = ("FastLanguageModel", "FastModel", "FastQwen2Model", "FastLlamaModel")
SEEING = ("FastVisionModel", "FastSentenceTransformer", "FastDiffusionModel")
TRAINERS = {"SFTTrainer": "sft", "UnslothTrainer": "sft", "DPOTrainer": "dpo", "ORPOTrainer": "orpo",
            "KTOTrainer": "kto", "GRPOTrainer": "grpo", "RewardTrainer": "reward", "CPOTrainer": "simpo"}  # fmt: skip
CONFIGS = ("SFTConfig", "DPOConfig", "ORPOConfig", "KTOConfig", "GRPOConfig", "RewardConfig", "CPOConfig",
           "TrainingArguments", "UnslothTrainingArguments")  # fmt: skip
WRITERS = ("map", "standardize_sharegpt", "standardize_data_formats", "to_sharegpt", "apply_chat_template")
TEMPLATES = {"chatml": "chatml", "llama-3": "llama3", "qwen-2.5": "qwen", "qwen3": "qwen3", "gemma-3": "gemma3",
             "gemma": "gemma", "phi-4": "phi", "mistral": "mistral", "alpaca": "alpaca"}  # fmt: skip
ORPO_DEFAULTS = {"method.beta": 0.1}


def read(path: Path) -> dict[str, Any]:
    """The arguments of a script's calls as one mapping, later calls over earlier ones. Raises InputError where it loads
    no model of Unsloth's, and ConfigError where it cannot be read."""
    script = calls.read(source.read_code(path))
    found: dict[str, Any] = {}
    for call in script.calls:
        found |= _arguments(call, found)
    if "vision" in found:
        raise InputError(
            f"{path}: ftlib trains on text, and writes it: {found['vision']} loads a model for something else."
        )
    if "model_name" not in found:
        raise InputError(
            f"{path}: this file trains nothing of Unsloth's: it never calls FastLanguageModel.from_pretrained."
        )
    if "trainer" not in found:
        raise InputError(f"{path}: this file trains nothing: it makes no trainer ({', '.join(TRAINERS)}).")
    return found


def _arguments(call: Call, found: dict[str, Any]) -> dict[str, Any]:
    if call.name == "from_pretrained" and call.of in (*LOADERS, *SEEING):
        return _loaded(call) if "trainer" not in found else {}  # after the training a script loads what it has saved
    if call.name == "get_peft_model" and call.of in LOADERS:
        return _known(call, "peft.")
    if call.name in TRAINERS:
        return {"trainer": call.name, **_known(call, "trainer.")}
    if call.name in CONFIGS:
        return _known(call)
    if call.name == "load_dataset" and "load_dataset" not in found and "trainer" not in found:
        return {"load_dataset": [str(one) for one in call.positional], **_known(call, "dataset.")}
    if call.name in WRITERS and "trainer" not in found and call.of not in ("tokenizer", "processor"):
        return {"rows": _writer(call)}
    if call.name == "get_chat_template":
        return {"chat_template": call.named.get("chat_template", *call.positional[1:2] or (None,))}
    return {"train_on_responses_only": True} if call.name == "train_on_responses_only" else {}


def _loaded(call: Call) -> dict[str, Any]:
    if call.of in SEEING:
        return {"vision": call.of}
    named = {"model_name": call.positional[0]} if call.positional else {}
    return named | {key: one for key, one in call.named.items() if key != "token"}


def _known(call: Call, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{key}": one for key, one in call.named.items()}


def _writer(call: Call) -> str:
    return str(call.positional[0]) if call.name == "map" and call.positional else call.name


def _told(why: str) -> Function:
    return lambda conversion, key, value: conversion.harmless(key, why)


def _plain(path: str) -> Function:
    """A key whose value stands in the script; one that only running it could tell is refused."""

    def function(conversion: Conversion, key: str, value: Any) -> None:
        if not is_known(value):
            return conversion.refuse(key, f"the script computes it ({value}), and ftlib does not run it: set {path}")
        return conversion.map(key, {path: value})

    return function


def _guarded(function: Function) -> Function:
    """A function of a table, for values that stand in the script."""

    def guarded(conversion: Conversion, key: str, value: Any) -> None:
        if not is_known(value):
            return conversion.refuse(
                key, f"the script computes it ({value}), and ftlib does not run it: set it yourself"
            )
        return function(conversion, key, value)

    return guarded


def _bits(conversion: Conversion, key: str, value: Any) -> None:
    adapted = any(name.startswith("peft.") for name in conversion.source)
    if value is not True:
        return conversion.harmless(key, "it is off")
    if not adapted:
        return conversion.refuse(key, "quantized weights are frozen: only an adapter is trained on them")
    return conversion.map(key, {"model.quantization": "nf4" if key == "load_in_4bit" else "int8"})


def _dtype(conversion: Conversion, key: str, value: Any) -> None:
    if value == "float16":
        return conversion.refuse(key, "float16 needs a scaler of gradients: bfloat16 or float32")
    return conversion.map(key, {"model.dtype": value})


def _length(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.map(key, {"data.max_length": value})


def _precision(conversion: Conversion, key: str, value: Any) -> None:
    """`bf16 = is_bfloat16_supported()` in most scripts."""
    if isinstance(value, Unknown):
        return conversion.harmless(key, f"{value}: a GPU that has bfloat16 computes in it here too")
    if key == "bf16":
        return conversion.map(key, {"train.bf16": bool(value)})
    return conversion.harmless(key, "it is off") if value is False else conversion.refuse(
        key, "float16 needs a scaler of gradients; use train.bf16")  # fmt: skip


def _trainer(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.map(key, {"method.type": TRAINERS[value]})


def _dataset(conversion: Conversion, key: str, value: Any) -> None:
    """`load_dataset("NAME", "CONFIG", split = "train")`, or `load_dataset("json", data_files = "x.jsonl")`."""
    files, split = conversion.get("dataset.data_files"), conversion.get("dataset.split", "train")
    file = files[0] if isinstance(files, list) and files else files
    if file is not None and not isinstance(file, str):
        return conversion.refuse(key, "the script computes the name of the file: set data.train")
    settings: dict[str, Any] = {"data.train": file or value[0]} if file or value else {}
    if not settings:
        return conversion.refuse(key, "the script computes the name of the data set: set data.train")
    if not file and len(value) > 1:
        settings["data.hub_config"] = value[1]
    if not file and isinstance(split, str) and split != "train":
        settings["data.hub_split"] = split
    return conversion.map(key, settings)


def _rows(conversion: Conversion, key: str, value: Any) -> None:
    if value in ("standardize_sharegpt", "standardize_data_formats"):
        return conversion.harmless(key, "ftlib reads sharegpt and messages as they are")
    told = f"the script's own function {value} writes the rows, and ftlib does not run it: run it"
    return conversion.refuse(key, f"{told}, save what it makes (dataset.to_json), and name that file in data.train")


def _template(conversion: Conversion, key: str, value: Any) -> None:
    note = "" if value in TEMPLATES else "Unsloth's is a copy of the model's own"
    return conversion.map(key, {"data.template": TEMPLATES.get(str(value), "tokenizer")}, note, look=bool(note))


def _of_method(conversion: Conversion, key: str, value: Any) -> None:
    method = TRAINERS.get(str(conversion.get("trainer")), "sft")
    name = key.removeprefix("trainer.")
    if isinstance(value, Unknown):
        return conversion.refuse(key, f"the script computes it ({value}): set method.{name}")
    if method in OF_METHODS.get(name, set()) or (name == "beta" and method in ("orpo", "simpo")):
        return conversion.map(key, {f"method.{name}": value})
    return conversion.harmless(key, f"{conversion.get('trainer')} does not read it")


def _rewards(conversion: Conversion, key: str, value: Any) -> None:
    names = ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)
    return conversion.refuse(key, f"the script's own functions ({names}): put them into a module, and name each as "
                                  "module:function in method.rewards")  # fmt: skip


def _packing(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.map(key, {"data.packing": True}) if value is True else conversion.harmless(key, "it is off")


FUNCTIONS: dict[str, Function] = {
    **{key: _guarded(function) for key, function in ARGUMENTS_FUNCTIONS.items()},
    **{key: _plain(path) for key, path in ARGUMENTS.items()},
    **dict.fromkeys(OF_METHODS, _of_method),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), _bits),
    **dict.fromkeys(("fp16", "bf16"), _precision),
    **dict.fromkeys(
        ("max_length", "max_seq_length", "trainer.max_seq_length", "trainer.max_length"), _guarded(_length)
    ),
    **dict.fromkeys(("packing", "trainer.packing"), _guarded(_packing)),
    **{
        f"peft.{key}": _plain(f"adapter.{key}") for key in ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
    },
    "peft.target_modules": _guarded(lambda conversion, key, value: modules(conversion, key, value)),
    "peft.random_state": _told("train.seed draws the first weights"),
    "peft.use_gradient_checkpointing": lambda conversion, key, value: conversion.map(
        key, {"train.activation_checkpointing": value is not False}
    ),
    "peft.bias": lambda conversion, key, value: (
        conversion.harmless(key, "no biases are trained")
        if value == "none"
        else conversion.refuse(key, "an adapter trains no biases")
    ),
    "peft.modules_to_save": _plain("adapter.modules_to_save"),
    "peft.loftq_config": lambda conversion, key, value: conversion.map(key, {"adapter.init_lora_weights": "loftq"}),
    "peft.qat_scheme": lambda conversion, key, value: conversion.refuse(key, ROUNDED),
    "model_name": _plain("model.name_or_path"),
    "revision": _plain("model.revision"),
    "trust_remote_code": _plain("model.trust_remote_code"),
    "dtype": _guarded(_dtype),
    "full_finetuning": _told("without get_peft_model all weights are trained"),
    "trainer": _trainer,
    "load_dataset": _dataset,
    "rows": _rows,
    "chat_template": _template,
    "train_on_responses_only": lambda conversion, key, value: conversion.map(key, {"data.train_on_prompt": False}),
    "trainer.reward_funcs": _rewards,
    "reward_funcs": _rewards,
    "trainer.beta": _of_method,
    "max_prompt_length": _told("prompt and answer have one length together (data.max_length)"),
    "trainer.max_prompt_length": _told("prompt and answer have one length together (data.max_length)"),
    "embedding_learning_rate": lambda conversion, key, value: conversion.refuse(
        key, "one learning rate is for all weights"
    ),
    "trainer.callbacks": lambda conversion, key, value: conversion.refuse(key, "the script's own code is not run"),
    "trainer.formatting_func": _rows,
    "trainer.data_collator": _told("rows are put together by the method"),
    "dataset.streaming": lambda conversion, key, value: conversion.refuse(
        key, "rows are read whole before training: set data.max_rows"
    ),
    "load_in_fp8": lambda conversion, key, value: conversion.refuse(key, "frozen weights are nf4 or int8 here"),
    "qat_scheme": lambda conversion, key, value: conversion.refuse(key, ROUNDED),
}


def _finish(conversion: Conversion) -> None:
    """What Unsloth and TRL do where the script says nothing."""
    method = conversion.at("method.type") or "sft"
    adapted = any(key.startswith("peft.") for key in conversion.source)
    for path, value in {
        **METHOD.get(method, {}),
        **(ORPO_DEFAULTS if method in ("orpo", "simpo") else {}),
        **({"adapter.type": "lora", **LORA, "adapter.lora_dropout": 0.0} if adapted else {}),
        "model.dtype": "bfloat16",
        "data.max_length": 2048,
        "data.eval_split": 0,
        "train.learning_rate": RATES.get(method, 2e-5) if method in METHODS else 1e-6,
        "train.num_train_epochs": 3.0,
        "train.lr_scheduler_type": "linear",
        "train.optim": "adamw_torch_fused",
        "train.bf16": True,
        "train.eval_strategy": "end",
        "track.wandb": None,
    }.items():
        conversion.default(path, value)
    if adapted:
        conversion.default("adapter.target_modules", "all-linear")
    else:
        conversion.tree["adapter"] = None
    if method == "sft":
        conversion.default("data.train_on_prompt", not conversion.get("train_on_responses_only"))
    if conversion.at("data.train") is None and not any(fate.key == "load_dataset" for fate in conversion.refused):
        conversion.refuse("load_dataset", "the script loads no data set by its name: set data.train")


TABLE = Table(
    "Unsloth",
    {},
    FUNCTIONS,
    _finish,
    foreign=(of_tool(words),),
    harmless={
        "it is how Unsloth loads and computes, and nothing that is learned hangs on it": (
            "max_lora_rank fast_inference gpu_memory_utilization unsloth_force_compile offload_embedding device_map "
            "load_in_16bit use_gradient_checkpointing fix_tokenizer unsloth_tiled_mlp device_map_planner_kwargs "
            "unsloth_vllm_standby float8_kv_cache attn_implementation"
        ),
        "the trainer has it from the calls before": (
            "trainer.model trainer.tokenizer trainer.processing_class trainer.args trainer.train_dataset "
            "trainer.eval_dataset trainer.ref_model"
        ),
        "rows come tokenized, with the columns that the trainer takes": (
            "trainer.dataset_text_field dataset_text_field trainer.dataset_num_proc dataset_num_proc dataset_kwargs "
            "remove_unused_columns padding_free"
        ),
        "load_dataset reads it": "dataset.split dataset.data_files dataset.name dataset.num_proc",
        "layers of a model that sees are not trained by text": (
            "peft.finetune_vision_layers peft.finetune_language_layers peft.finetune_attention_modules "
            "peft.finetune_mlp_modules peft.task_type peft.finetune_audio_layers"
        ),
        "completions are written by the model itself, in the trainer": "vllm_sampling_params",
    },
    also=ARGUMENTS_ALSO,
)
