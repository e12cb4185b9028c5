"""Frozen linear layers on a CPU, their weights laid out as oneDNN likes them.

PyTorch gives float32 products to MKL, which is slow on other makers' processors: on AMD EPYC, oneDNN takes 40 to 45 %
of its time (docs/log.md, 2026-11-24), and no more than its time elsewhere. A row's result depends on that row alone,
whatever the number of rows. Laying weights out once is what `torch.compile` does with frozen weights too; the operators
are those that it calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import psutil
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

ROWS = 16  # for which the layout is chosen; it hardly matters (measured for 1 to 256)
ROOM = 0.25  # of the free memory may go into a second layout, for gradients


class FrozenLinear(nn.Module):
    """In the place of an nn.Linear that is not trained. It has no `weight` any more: only products with it."""

    def __init__(self, layer: nn.Linear, gradients: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        weight = layer.weight.detach()
        self.dtype = weight.dtype
        self._there = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self._back = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), ROWS) if gradients else None

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] to [..., out], as nn.Linear."""
        if torch.is_grad_enabled() and x.requires_grad:
            out: Tensor = _Product.apply(x, self)
            return out
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """The layer's output, x W^T + b."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._there, self.bias, "none", [], "")
        return out

    def gradient(self, dy: Tensor) -> Tensor:
        """dy W: the gradient of the input."""
        dx: Tensor = torch.ops.mkldnn._linear_pointwise(dy, self._back, None, "none", [], "")
        return dx


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.gradient(dy), None


Plain: TypeAlias = nn.Linear | FrozenLinear


def is_plain(layer: nn.Module) -> bool:
    """Whether `product` and `gradient` know the layer: others (quantized ones) multiply and differentiate
    themselves."""
    return type(layer) in (nn.Linear, FrozenLinear)


def product(layer: Plain, x: Tensor) -> Tensor:
    """x W^T + b of a plain layer, outside of autograd."""
    return layer.product(x) if isinstance(layer, FrozenLinear) else linear(x, layer.weight, layer.bias)


def gradient(layer: Plain, dy: Tensor) -> Tensor:
    """dy W of a plain layer, outside of autograd."""
    return layer.gradient(dy) if isinstance(layer, FrozenLinear) else dy @ layer.weight


def freeze_linears(
    model: nn.Module, gradients: bool, keep: Sequence[str] = (), dtypes: Sequence[torch.dtype] = (torch.float32,)
) -> int:
    """Replaces the linear layers of a frozen model, but those named in `keep`; returns how many.

    None where oneDNN is missing; and with `gradients`, which take a second layout, none where memory is short.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return 0
    fit = [(name, part) for name, part in model.named_modules() if name not in keep and _fits(part, dtypes)]
    if gradients and sum(part.weight.nbytes for _, part in fit) > ROOM * psutil.virtual_memory().available:
        return 0
    for name, layer in fit:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, FrozenLinear(layer, gradients))
    return len(fit)


def as_linears(model: nn.Module) -> int:
    """Replaces GPT-2's Conv1D, which keeps its weight as [in, out], by nn.Linear; returns how many."""
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, Conv1D)]
    for name, part in found:
        layer = nn.utils.skip_init(nn.Linear, *part.weight.shape, dtype=part.weight.dtype)
        layer.weight = nn.Parameter(part.weight.detach().t().contiguous(), requires_grad=False)
        layer.bias = part.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return len(found)


def _fits(layer: Any, dtypes: Sequence[torch.dtype]) -> bool:
    return type(layer) is nn.Linear and layer.weight.device.type == "cpu" and layer.weight.dtype in dtypes
