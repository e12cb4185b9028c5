"""Layers that each slot of a bank trains whole: a classifier's head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlib.models.bank_routes import Route, bmm

if TYPE_CHECKING:
    from ftlib.models.bank_parts import Part
    from ftlib.models.lora_bank import LoraBank


class BankHead(nn.Module):
    """In the place of a linear layer that each slot trains whole: each row by its slot's own copy, in float32."""

    def __init__(self, base: nn.Linear, bank: LoraBank, weight: Part, bias: Part | None) -> None:
        super().__init__()
        self.base, self.weight, self.bias = base, weight, bias
        self.in_features, self.out_features = base.in_features, base.out_features
        self._bank = (bank,)

    @property
    def parts(self) -> list[Part]:
        """What a slot trains of it."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def forward(self, x: Tensor) -> Tensor:
        """x [N, rows, in] to [N, rows, out]; without a route, as the base's own layer."""
        (bank,) = self._bank
        if bank.route is None:
            return self.base(x.to(self.base.weight.dtype))
        assert isinstance(bank.route, Route)
        out: Tensor = _Stacked.apply(x.float(), bank.anchor, bank, self.weight, self.bias, bank.route)
        return out


class _Stacked(torch.autograd.Function):
    """x W + b of each slot's own W and b; their gradients are added to the bank."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, bank: LoraBank, weight: Part, bias: Part | None, route: Route
    ) -> Tensor:
        matrix = route.of(weight.of(bank.weights)).to(x.dtype)
        ctx.save_for_backward(x, matrix)
        ctx.bank, ctx.weight, ctx.bias, ctx.route = bank, weight, bias, route
        out = bmm(x, matrix)
        return out if bias is None else out.add_(route.of(bias.of(bank.weights)).unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        ctx.route.add(ctx.weight.of(ctx.bank.grads), x.transpose(1, 2), dy)
        if ctx.bias is not None:  # a product with ones: a sum's order depends on how many rows others have
            ones = torch.ones_like(dy[:, :, :1])
            ctx.route.add(ctx.bias.of(ctx.bank.grads).unsqueeze(1), ones.transpose(1, 2), dy)
        return bmm(dy, matrix.transpose(1, 2)), None, None, None, None, None
