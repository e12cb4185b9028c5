"""DoRA in a bank (Liu et al. 2024, arXiv:2402.09353): the rows of W + s B A keep their direction, and have a trained
magnitude m each.

A layer computes b + g (x W^T + s x A B) with g = m / |W + s B A|, whose norms no gradient goes through, as in PEFT. A
bank has no W beside its products, so that the norms come from |W|^2 + 2 s W A B + s^2 |B A|^2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ftlib.models.bank_routes import Route, bmm
from ftlib.models.onednn import Plain, gradient, product

if TYPE_CHECKING:
    from ftlib.models.lora_bank import BankLinear, LoraBank

ROWS = 16  # a block of this many rows is the same bits in any company (`ftlib.pack.token_layout`)


def squared_norms(layer: Plain) -> Tensor:
    """[out]: |W|^2 of each row, in float32."""
    outputs = layer.out_features
    unit = torch.eye(outputs, dtype=_dtype(layer))
    parts = unit.to(layer.weight.device if hasattr(layer, "weight") else "cpu").split(1024)
    return torch.cat([gradient(layer, part).float().square().sum(1) for part in parts])


def with_magnitudes(out: Tensor, layer: BankLinear, bank: LoraBank, route: Route) -> Tensor:
    """The output [N, M, out] of a layer, each trial's scaled by its own gains; of a trial without DoRA as it is."""
    scaled: Tensor = _Scaled.apply(out, bank.anchor, layer, bank, route)
    return scaled


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, anchor: Tensor, layer: BankLinear, bank: LoraBank, route: Route) -> Tensor:
        norms = _norms(layer, bank)
        has = torch.tensor([bank.has_magnitudes(slot, layer.number) for slot in route.slots], device=out.device)
        magnitudes = route.of(bank.magnitudes[layer.number].of(bank.weights))
        gains = torch.where(has.unsqueeze(1), magnitudes / norms, 1.0).unsqueeze(1).to(out.dtype)
        inverse = torch.where(has.unsqueeze(1), 1 / norms, 0.0).unsqueeze(1)
        bias = layer.base.bias
        ctx.save_for_backward(out, gains, inverse)
        ctx.layer, ctx.bank, ctx.route = layer, bank, route
        return out * gains if bias is None else (out * gains).add_(bias * (1 - gains))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        out, gains, inverse = ctx.saved_tensors
        bias, bank = ctx.layer.base.bias, ctx.bank
        plain = (out if bias is None else out - bias) * inverse.to(out.dtype)
        ones = torch.ones_like(dy[:, :, :1])  # a product with ones: a sum's order depends on how many rows others have
        into = bank.magnitudes[ctx.layer.number].of(bank.grads).unsqueeze(1)
        ctx.route.add(into, ones.transpose(1, 2), dy * plain)
        return dy * gains, None, None, None, None


def _norms(layer: BankLinear, bank: LoraBank) -> Tensor:
    """[N, out]: |W + s B A| of each row."""
    a, b = bank.matrices(layer.number, torch.float32)
    scale = bank.scale(layer.number, torch.float32).squeeze(1)
    rank = a.shape[2]
    rows = pad(a.transpose(1, 2), (0, 0, 0, -rank % ROWS)).to(_dtype(layer.base))
    products = product(layer.base, rows)[:, :rank].float()
    if layer.base.bias is not None:
        products = products - layer.base.bias.float()
    crossed, squared = (products * b).sum(1), (bmm(bmm(a.transpose(1, 2), a), b) * b).sum(1)
    return (bank.norms[layer.number] + 2 * scale * crossed + scale**2 * squared).clamp_min(0).sqrt()


def _dtype(layer: Any) -> torch.dtype:
    dtype: torch.dtype = layer.dtype if hasattr(layer, "dtype") else layer.weight.dtype
    return dtype
