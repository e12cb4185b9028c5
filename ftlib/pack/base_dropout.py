"""The dropout of a base itself (BERT has some): drawn for each trial, as if it trained alone.

Adapters learn behind a frozen base's dropout too, where the trainer leaves the base in training mode, as transformers'
does. Trials with one seed drop the same numbers, so that what they share is still computed once.
"""

from __future__ import annotations

from torch import Tensor, nn

from ftlib.models.bank_routes import Route
from ftlib.models.lora_bank import LoraBank


class BaseDropout(nn.Module):
    """In the place of an nn.Dropout. It drops where the bank's route says for which trials, and else nothing."""

    def __init__(self, p: float, name: str, bank: LoraBank) -> None:
        super().__init__()
        self.p, self.name = p, name
        self._bank = (bank,)  # in a tuple: the bank is no child of the model

    @property
    def route(self) -> Route | None:
        """Whose dropout is drawn now."""
        (bank,) = self._bank
        return bank.route if self.p and isinstance(bank.route, Route) else None

    def forward(self, x: Tensor) -> Tensor:
        """x [N or 1, M, width]."""
        mask = None if self.route is None else self.route.masks(self.name, x, self.p)
        return x if mask is None else x * mask


def draw_for_each(model: nn.Module, bank: LoraBank) -> bool:
    """Puts a BaseDropout in the place of every nn.Dropout of a base; whether one of them drops something."""
    found = [(name, module.p) for name, module in model.named_modules() if isinstance(module, nn.Dropout)]
    for name, p in found:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, BaseDropout(p, name, bank))
    return any(p > 0 for _, p in found)


def attention_dropout(model: nn.Module) -> str | None:
    """The name, in the model's config, by which its attention drops weights; None where it drops none."""
    for part in model.modules():
        dropped = getattr(part, "attention_dropout", 0.0)
        if isinstance(dropped, float) and dropped > 0:
            return "attention_dropout"
        if isinstance(attn := getattr(part, "attn_dropout", None), nn.Dropout) and attn.p > 0:
            return "attn_pdrop"
    return None
