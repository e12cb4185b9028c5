"""Which tool a configuration is of, by keys that only this tool has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TELLING: dict[str, set[str]] = {
    "axolotl": {"base_model", "micro_batch_size", "sequence_len", "val_set_size", "sample_packing", "datasets"},
    "llama_factory": {"stage", "finetuning_type", "template", "cutoff_len", "dataset", "train_dataset", "lora_target"},
    "trl": {"dataset_name", "use_peft", "dataset_train_split", "lora_target_modules", "completion_only_loss",
            "per_device_train_batch_size", "max_length", "dataset_text_field"},
    "torchtune": {"checkpointer", "metric_logger", "batch_size", "optimizer", "loss", "tokenizer", "epochs"},
}  # fmt: skip
# Files of the same tools, and of those below them, that train nothing.
OTHER_FILES: dict[str, tuple[set[str], str]] = {
    "accelerate": ({"compute_environment", "distributed_type"},
                   "it says how accelerate spreads a training: convert the training's own file, with --gpus"),
    "export": ({"export_dir"}, "it merges or quantizes a model that is trained: see 'ftlib merge'"),
    "evaluate": ({"predict_with_generate"}, "it evaluates a model: see 'ftlib evaluate'"),
    "tune eval": ({"tasks", "checkpointer"}, "it evaluates a model: see 'ftlib evaluate'"),
    "tune generate": ({"max_new_tokens", "checkpointer"}, "it has a model write: see 'ftlib serve'"),
    "serve": ({"infer_backend"}, "it serves a model: see 'ftlib serve'"),
}  # fmt: skip


def why_no_training(source: Mapping[str, Any]) -> str | None:
    """Why a file trains nothing, as a sentence; None where it may."""
    peft = source.get("peft_config")
    if isinstance(peft, Mapping) and peft.get("export_dir") and "train_dataset" not in source:
        return OTHER_FILES["export"][1]
    for telling, why in OTHER_FILES.values():
        if telling <= set(source):
            return why
    return None


def recognize(source: Mapping[str, Any]) -> str | None:
    """The tool with most of its telling keys in the file; None where there is none of any."""
    if any(isinstance(value, Mapping) and "_component_" in value for value in source.values()):
        return "torchtune"
    counts = {tool: len(telling & set(source)) for tool, telling in TELLING.items()}
    best = max(counts, key=lambda tool: counts[tool])
    return best if counts[best] else None
