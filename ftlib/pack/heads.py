"""The head that each trial of a classifier trains whole: a decoder's `score`, an encoder's `classifier`.

A decoder's text ends in its last token, and its head is one product. An encoder's text is read at its first token, and
what comes after differs from model to model (a pooler, a head of two layers). So that part stays the model's own: hooks
give it the first places of all sequences as if they were one first place, [N, 1, P, hidden].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftlib.pack.encoder_attention import current


@dataclass(frozen=True)
class ClassifierHead:
    """`name` is how PEFT finds the modules that it saves whole, `layers` are their linear layers."""

    name: str
    layers: tuple[str, ...]
    reads_first: bool

    @classmethod
    def of(cls, model: Any) -> ClassifierHead | None:
        """The head of a classifier; None where it is none that is made of linear layers alone."""
        for name, reads_first in (("score", False), ("classifier", True)):
            if hasattr(model, name):
                saved = [(path, part) for path, part in model.named_modules() if path.endswith(name)]  # as PEFT does
                layers = [layer for path, part in saved for layer in _linear_layers(path, part)]
                whole = all(_is_linear_alone(part) for _, part in saved)
                return cls(name, tuple(layers), reads_first) if whole and (reads_first or layers == [name]) else None
        return None


def _linear_layers(path: str, module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules(prefix=path) if isinstance(part, nn.Linear)]


def _is_linear_alone(module: nn.Module) -> bool:
    """Whether all that it trains is in linear layers."""
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    held = {id(weight) for part in linear for weight in part.parameters()}
    return bool(linear) and held == {id(weight) for weight in module.parameters()}


def show_first_places(model: Any) -> None:
    """Makes what stands on an encoder's body read the picked places, within `attending`."""
    body = model.base_model

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        if current() is not None:
            output["last_hidden_state"] = _first_places(output["last_hidden_state"])
        return output

    def before(module: nn.Module, args: Any) -> Any:
        return args if current() is None else (_first_places(args[0]), *args[1:])

    body.register_forward_hook(after)
    if getattr(body, "pooler", None) is not None:
        body.pooler.register_forward_pre_hook(before)


def _first_places(hidden: Tensor) -> Tensor:
    """[N, 1, P, hidden]."""
    sequences = current()
    assert sequences is not None
    return sequences.layout.pick(hidden.expand(sequences.trials, -1, -1)).unsqueeze(1)


def first_position(model: Any) -> int:
    """The position of a text's first token: RoBERTa's positions begin behind that of the padding token."""
    for part in model.modules():
        if hasattr(part, "create_position_ids_from_input_ids") and hasattr(part, "padding_idx"):
            return int(part.padding_idx) + 1
    return 0


class Drawn:
    """The layers that the base's files lack: loading drew them from torch's seed, and a trial has them of its own."""

    def __init__(self, model: Any, head: ClassifierHead | None) -> None:
        own = head.layers if head else ()
        lacking = getattr(model, "drawn", [f"{name}.weight" for name in own])  # a base drawn whole is one for all
        names = [name for name, part in model.named_modules() if f"{name}.weight" in lacking]
        self.layers: dict[str, Any] = {name: model.get_submodule(name) for name in names}
        self.heads = {
            f"{name}.{kind}": part.detach().clone()
            for name in own
            for kind, part in model.get_submodule(name).named_parameters()
        }
        self.beside_heads = [name for name in names if name not in own]
        self._model = (model,)

    def again(self) -> dict[str, Tensor]:
        """The heads' tensors as loading makes them with the seed that torch has now."""
        (model,) = self._model
        found = dict(self.heads)
        for name, layer in self.layers.items():
            if isinstance(layer, nn.Linear):
                shape = layer.in_features, layer.out_features, layer.bias is not None
                fresh = nn.utils.skip_init(nn.Linear, *shape, dtype=torch.float32)
                model._init_weights(fresh)
                made = {f"{name}.{kind}": part.detach() for kind, part in fresh.named_parameters()}
                found |= {key: part for key, part in made.items() if key in self.heads}
        return found


def names_of(head: ClassifierHead | None) -> Sequence[str]:
    """The layers of a head; none where there is none."""
    return head.layers if head else ()
