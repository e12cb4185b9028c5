"""Frozen linear layers on a CPU, their weights laid out as oneDNN likes them.

PyTorch gives float32 products to MKL, which is slow on other makers' processors: on AMD EPYC, oneDNN takes 35 to 45 % of
its time for 1 to 512 rows (docs/log.md, 2026-11-24), and not more elsewhere. Laying weights out once is what
`torch.compile` does with frozen weights too; the operators are those that it calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ROWS = 16  # for which the layout is chosen; it hardly matters (measured for 1 to 256)
DTYPES = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Module):
    """In the place of a frozen nn.Linear. It has no `weight` any more: only products with it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] to [..., out], as nn.Linear; without gradients."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return out


def pack_linears(model: nn.Module) -> int:
    """Replaces the plain linear layers of a model that only answers; returns how many. None where oneDNN is missing."""
    if not _available():
        return 0
    fit = [(name, layer) for name, layer in model.named_modules() if _fits(layer)]
    for name, layer in fit:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, PackedLinear(layer))
    return len(fit)


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _fits(layer: Any) -> bool:
    return type(layer) is nn.Linear and layer.weight.device.type == "cpu" and layer.weight.dtype in DTYPES
