"""A folder of plain LoRA as a bank takes it: by the bank's names, each layer's scale inside its B.

A bank has one scale a slot, and PEFT one a layer: alpha / r, or alpha / sqrt(r) of rsLoRA, where patterns may give a
layer its own alpha and its own r.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, dtype, nn

from ftlib.models.adapter_files import WEIGHTS, adapter_config
from ftlib.models.lora_bank import PREFIX, LoraBank


@dataclass(frozen=True)
class PlainLora:
    """`ranks` are its layers', `state` its tensors in PEFT's shapes ([r, in], [out, r])."""

    ranks: dict[str, int]
    state: dict[str, Tensor]

    @property
    def rank(self) -> int:
        return max(self.ranks.values(), default=0)

    def of_one_rank(self) -> PlainLora:
        """The same adapter with the largest rank in all its layers, for programs that read one rank and one alpha: the
        rows and columns that are added are zero."""
        state = {name: _padded(name, tensor, self.rank) for name, tensor in self.state.items()}
        return PlainLora(dict.fromkeys(self.ranks, self.rank), state)


def read_lora(owner: str, folder: Path) -> PlainLora:
    """The adapter in a folder. Raises InputError for a config that is none."""
    from peft.utils.other import get_pattern_key  # how PEFT itself finds a layer's alpha

    config = adapter_config(owner, folder)
    state = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    ranks = {name.removesuffix(".lora_A.weight"): len(part) for name, part in state.items() if ".lora_A." in name}
    alphas = config.get("alpha_pattern") or {}
    for layer, rank in ranks.items():
        alpha = alphas.get(get_pattern_key(alphas, layer), config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        if (b := f"{layer}.lora_B.weight") in state:
            state[b] = state[b].float() * scale
    return PlainLora(ranks, state)


def _padded(name: str, tensor: Tensor, rank: int) -> Tensor:
    down = ".lora_A." in name
    missing = rank - tensor.shape[0 if down else 1]
    return nn.functional.pad(tensor, (0, 0, 0, missing) if down else (0, missing)).contiguous()


def serving_bank(model: nn.Module, targets: Iterable[str], slots: int, rank: int, computed_in: dtype) -> LoraBank:
    """The bank in which adapters are served: without gradients, in the base's dtype. The gate checks in this one."""
    return LoraBank(model, sorted(targets), slots, rank, frozen=True, dtype=computed_in)
