"""`ftlib merge`: an adapter computed into its base, as one plain model that anything loads."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open

import ftlib.models.adapters.fusion  # noqa: F401 (registers the tuners that PEFT lacks)
from ftlib.config import Head, ModelSection
from ftlib.errors import InputError
from ftlib.files.atomic import replace_directory
from ftlib.files.json_files import read_json
from ftlib.models.adapter_files import check_tensors
from ftlib.models.adapters.state import PEFT_CONFIG, PEFT_WEIGHTS
from ftlib.models.base import load_model, load_tokenizer
from ftlib.models.experts import plain_experts
from ftlib.run.layout import MANIFEST

MERGEABLE = ("LORA", "ADALORA", "IA3", "VERA", "OFT", "BOFT")
WHY_NOT = {
    "FUSION": "a fusion weighs its adapters anew at each token",
    "BOTTLENECK": "a bottleneck adapter is not linear, so no matrix of the base can hold it",
    "PREFIX_TUNING": "its keys and values stand before the input, and no matrix of the base can hold them",
    "PROMPT_TUNING": "its embeddings stand before the input, and no matrix of the base can hold them",
    "P_TUNING": "its embeddings stand before the input, and no matrix of the base can hold them",
}


def merge(adapter: Path, base: ModelSection, target: Path, dtype: str | None = None) -> None:
    """Writes base + adapter into `target`: safetensors, config, tokenizer. It must not exist, or be empty.

    `dtype` is what torch calls the numbers that are written; they are then added up in float32, and rounded once. None
    keeps the base's.

    An adapter of a quantized base is merged into the quantized weights made plain again, which are what it was trained
    and measured on; the full-precision base would be another one. Raises InputError for what cannot be merged.
    """
    kind = check_mergeable(adapter)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already: name a folder that is not.")
    head, labels = head_of(adapter)
    wide = {} if dtype is None or base.quantization is not None else {"dtype": "float32"}
    model = load_model(base.model_copy(update=wide), head, labels)
    if base.quantization is not None:
        model = model.dequantize()
        plain_experts(model)
        model.is_loaded_in_4bit = model.is_loaded_in_8bit = False  # IA3 goes by it
    try:
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{adapter} ({kind}) does not fit {base.name_or_path}: {reason}") from error
    staged = target.with_name(f".{target.name}.staged")
    shutil.rmtree(staged, ignore_errors=True)
    if dtype is not None:
        merged = merged.to(getattr(torch, dtype))
    merged.save_pretrained(staged)
    load_tokenizer(_of_adapter(adapter, base), head).save_pretrained(staged)
    replace_directory(staged, target)


def check_mergeable(adapter: Path) -> str:
    """The adapter's PEFT type. Raises InputError where `adapter` holds none, or one that no base can absorb."""
    if not (adapter / PEFT_CONFIG).is_file() or not (adapter / PEFT_WEIGHTS).is_file():
        raise InputError(f"{adapter} holds no PEFT adapter ({PEFT_CONFIG} and {PEFT_WEIGHTS}).")
    check_tensors(adapter)
    kind = str((read_json(adapter / PEFT_CONFIG, dict) or {}).get("peft_type"))
    if kind not in MERGEABLE:
        reason = WHY_NOT.get(kind, f"{kind} is no kind of adapter that PEFT merges")
        raise InputError(
            f"{adapter} cannot be merged: {reason}. 'ftlib serve' answers with the adapter beside its base."
        )
    return kind


def head_of(adapter: Path) -> tuple[Head, list[str]]:
    """The head that the adapter was trained under, and for a classifier the names of its classes."""
    if read_json(adapter / PEFT_CONFIG).get("task_type") != "SEQ_CLS":
        return "causal_lm", []
    with safe_open(adapter / PEFT_WEIGHTS, framework="pt") as file:
        names = file.keys()
        heads = [name for name in names if name.endswith(("score.weight", "classifier.weight", "out_proj.weight"))]
        classes = file.get_slice(heads[-1]).get_shape()[0] if heads else 2
    manifest = read_json(adapter.parent / MANIFEST) or {}
    named = manifest.get("labels") or []
    return "sequence_classification", named if len(named) == classes else [f"LABEL_{n}" for n in range(classes)]


def _of_adapter(adapter: Path, base: ModelSection) -> ModelSection:
    """The section that names the tokenizer's folder: the adapter's, with the chat template of its training, or the
    base's."""
    if not (adapter / "tokenizer_config.json").is_file():
        return base
    return base.model_copy(
        update={"name_or_path": str(adapter), "gguf_file": None, "tokenizer": None, "revision": None}
    )
