"""How deep the weights of a model lie: 0 are the embeddings, 1 to n its layers, n + 1 what stands above them (a norm, a
head). An adapter lies as deep as the layer that it is in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ftlib.errors import ConfigError

EMBEDDINGS = re.compile(r"embed|(^|\.)(wte|wpe|shared)\.")


@dataclass(frozen=True)
class Depths:
    """The depths of one model. `stack` is the name of its list of layers, `head` that of its output layer."""

    stack: str
    layers: int
    head: str

    @classmethod
    def of(cls, model: Any) -> Depths:
        """Of a model with a head, with or without an adapter. Raises ConfigError where its layers are no list of as
        many modules as its config says."""
        count = model.config.get_text_config().num_hidden_layers
        output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        names = {id(part): name for name, part in model.named_modules()}
        for name, part in model.named_modules():
            if isinstance(part, nn.ModuleList) and len(part) == count:
                return cls(name, count, names.get(id(output), "") if output is not None else "")
        raise ConfigError(
            f"train.layer_lr_decay and train.unfreeze_steps: the layers of {type(model).__name__} are not where they "
            "are looked for: leave both keys out."
        )

    def depth(self, name: str) -> int:
        """Of a weight, by its name in the model. Tied weights have the name of the embeddings."""
        if name.startswith(f"{self.stack}."):
            return int(name.removeprefix(f"{self.stack}.").partition(".")[0]) + 1
        if EMBEDDINGS.search(name) and not (self.head and name.startswith(f"{self.head}.")):
            return 0
        return self.layers + 1

    def trained(self, model: nn.Module) -> list[tuple[Tensor, int]]:
        """What a model trains, and how deep each weight of it lies."""
        return [(part, self.depth(name)) for name, part in model.named_parameters() if part.requires_grad]


def top_of(depths: Iterable[tuple[Tensor | tuple[int, ...], int]]) -> int:
    """The highest depth with a matrix, of weights or their shapes. A norm above the layers is no top of its own, unless
    there are vectors alone."""
    known = [(len(part if isinstance(part, tuple) else part.shape), depth) for part, depth in depths]
    matrices = [depth for dimensions, depth in known if dimensions > 1]
    return max(matrices or [depth for _, depth in known])
