"""The parts of a model that an adapter section names: are they there, and can they be adapted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from peft import PeftModel
from torch import nn

from ftlib.config import AdapterSection, Lora
from ftlib.errors import ConfigError, nearest
from ftlib.models.experts import has_quantized_experts


def check_named(model: Any, adapter: Lora) -> None:
    """Raises ConfigError for a name that is not there: PEFT says nothing of it."""
    parameters = [name for name, _ in model.named_parameters()]
    modules = [name for name, _ in model.named_modules() if name]
    for key, known in (("modules_to_save", modules), ("target_parameters", parameters)):
        for name in getattr(adapter, key):
            if not any(f".{one}".endswith(f".{name}") for one in known):
                ends = {one.rpartition(".")[2] for one in known}
                raise ConfigError(f"adapter.{key}: {type(model).__name__} has no '{name}'.{nearest(name, ends)}")


def check_experts(model: Any, adapter: AdapterSection) -> None:
    """Raises ConfigError where experts in few bits would be adapted: PEFT reads names of old checkpoints (`up_proj`, of
    Mixtral and Qwen) as those of the experts in one weight."""
    if not has_quantized_experts(model) or not isinstance(model, PeftModel):
        return
    if parameters := getattr(model.peft_config["default"], "target_parameters", None):
        raise ConfigError(
            f"adapter.target_modules: with {getattr(adapter, 'target_modules', '')} PEFT would adapt experts "
            f"({', '.join(sorted(parameters))}), which model.quantize_moe_experts keeps in few bits: name layers of "
            "the attention, for example [q_proj, k_proj, v_proj, o_proj]."
        )


def matching(model: Any, patterns: Sequence[str]) -> list[nn.Parameter]:
    """The weights whose names begin as one of the patterns says. Raises ConfigError for a pattern without any."""
    found: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        matching = {name: part for name, part in model.named_parameters() if re.match(pattern, name)}
        if not matching:
            names = ", ".join([name for name, _ in model.named_parameters()][:3])
            raise ConfigError(f"adapter.parameters: no weight's name begins as '{pattern}'. Names here: {names} ...")
        found |= matching
    return list(found.values())
