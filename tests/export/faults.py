"""Faults, planted in an artifact after it was written, or in the merge that it is written of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ftlib.export.source import Source
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json

MODEL, ADAPTER = "model.safetensors", "adapter_model.safetensors"
MERGED_LAYER = "model.layers.1.self_attn.q_proj.weight"


Spoil = Callable[[dict[str, torch.Tensor]], None]


@dataclass(frozen=True)
class Spoiled(Source):
    """A source whose merged weights are spoiled: an exporter gets them in the place of the right ones."""

    spoil: Spoil

    def merged(self, folder: Path, dtype: str | None = None) -> None:
        super().merged(folder, dtype)
        change(folder, MODEL, self.spoil)


def change(folder: Path, file: str, spoil: Callable[[dict[str, torch.Tensor]], None]) -> None:
    parts = load_file(folder / file)
    spoil(parts)
    save_file({name: part.contiguous() for name, part in parts.items()}, folder / file, metadata={"format": "pt"})


def transpose(parts: dict[str, torch.Tensor]) -> None:
    parts[MERGED_LAYER] = parts[MERGED_LAYER].T


def transpose_pair(parts: dict[str, torch.Tensor]) -> None:
    """A and B of a square layer in each other's place."""
    layer = f"base_model.model.{MERGED_LAYER.removesuffix('.weight')}"
    down, up = f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"
    parts[down], parts[up] = parts[up].T, parts[down].T


def untie(parts: dict[str, torch.Tensor]) -> None:
    parts["lm_head.weight"] = parts["model.embed_tokens.weight"].clone()


def lose_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def lose_alpha(folder: Path) -> None:
    config = read_json(folder / "adapter_config.json")
    write_json(folder / "adapter_config.json", config | {"lora_alpha": config["r"]})


def merge_without_alpha(base: Path) -> Callable[[dict[str, torch.Tensor]], None]:
    """A third of what was added: alpha over rank is 3."""

    def spoil(parts: dict[str, torch.Tensor]) -> None:
        before = load_file(base / MODEL)
        parts.update({name: before[name] + (part - before[name]) / 3 for name, part in parts.items()})

    return spoil


def scale_without_alpha(parts: dict[str, torch.Tensor]) -> None:
    parts.update({name: part / 3 for name, part in parts.items() if "lora_B" in name})


def lose_tune(folder: Path) -> None:
    """A merge that adds nothing: the base's weights."""
    change(folder, ADAPTER, lambda parts: parts.update({n: p * 0 for n, p in parts.items() if "lora_B" in n}))
