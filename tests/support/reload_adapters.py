"""Loads saved trials with PEFT and transformers alone, in a process without ftlib's trainer, and writes their logits.

python -m tests.support.reload_adapters FOLDER ...     one trial's directory each; probe.safetensors holds the input
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

import ftlib.models.adapters.fusion  # noqa: F401 (registers the tuners that PEFT lacks)
from ftlib.models.base import keep_unpacked


def quantized(kind: str | None) -> dict[str, Any]:
    if kind is None:
        return {}
    if kind == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    return {"quantization_config": config}


def load(trial: Path, merged: bool = False) -> Any:
    manifest = json.loads((trial / "manifest.json").read_text())
    model = manifest["experiment"]["model"]
    method = manifest["experiment"]["method"]
    labels = 1 if method["type"] == "reward" else 8 if "classify" in (method["type"], method.get("task")) else None
    auto = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    if merged:
        return auto.from_pretrained(trial / "merged")
    if manifest["kind"] == "model":
        return auto.from_pretrained(trial / "model")
    more = {"num_labels": labels} if labels else {}
    dtype = model["dtype"]
    base = auto.from_pretrained(model["name_or_path"], dtype=dtype, **more, **quantized(model["quantization"]))
    keep_unpacked(base)  # bitsandbytes would round what is compared, or not take the tiny model's widths
    if labels:
        base.config.pad_token_id = 0
    return PeftModel.from_pretrained(base, trial / "adapter")


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().contiguous()


def main(folders: list[str]) -> None:
    torch.set_num_threads(1)
    for folder in map(Path, folders):
        ids = load_file(folder / "probe.safetensors")["ids"]
        found = {"reloaded": logits(load(folder), ids)}
        if (folder / "merged").is_dir():
            found["merged"] = logits(load(folder, merged=True), ids)
        save_file(found, folder / "reloaded.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
