"""Which layers a LoRA section adapts, each with its rank and its scale, as PEFT decides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from peft.tuners.lora import LoraLayer
from peft.utils.other import get_pattern_key

from ftlib.config import Head, Lora, ModelSection
from ftlib.models.adapters.build import empty_model
from ftlib.models.base import where

_named: dict[str, list[str]] = {}  # by model, head and choice; a process asks before it has loaded the model, and after


class LoraLayers:
    """Of one model. PEFT is asked once for each choice of modules and layers: it builds a shape to answer."""

    def __init__(self, model: ModelSection, head: Head) -> None:
        self.model, self.head = model, head

    def names(self, adapter: Lora) -> list[str]:
        """The adapted layers' names in the model, in its order."""
        shaped = Path(where(self.model)) / "config.json"  # a folder may hold another model by now
        changed = shaped.stat().st_mtime_ns if shaped.is_file() else None
        key = repr((self.model, changed, self.head, adapter.target_modules, adapter.layers_to_transform))
        if key not in _named:
            shape = empty_model(self.model, adapter, self.head)
            modules = shape.get_base_model().named_modules()
            _named[key] = [name for name, module in modules if isinstance(module, LoraLayer)]
        return _named[key]

    def of(self, adapter: Lora) -> dict[str, tuple[int, float]]:
        """(rank, scale) of each adapted layer."""
        return {name: _shape(adapter, name) for name in self.names(adapter)}

    def union(self, adapters: Iterable[Lora], order: Sequence[str]) -> list[str]:
        """The layers that one of the adapters has, in the `order` of a model's names."""
        found = {name for adapter in adapters for name in self.names(adapter)}
        return [name for name in order if name in found]


def _shape(adapter: Lora, name: str) -> tuple[int, float]:
    rank = int(_patterned(adapter.rank_pattern, name, adapter.r))
    alpha = _patterned(adapter.alpha_pattern, name, adapter.lora_alpha)
    return rank, float(alpha / (math.sqrt(rank) if adapter.use_rslora else rank))


def _patterned(patterns: dict[str, Any], name: str, otherwise: float) -> float:
    return float(patterns.get(get_pattern_key(patterns, name), otherwise))
