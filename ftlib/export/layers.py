"""What each linear layer makes of one vector: it tells rounding from a matrix that is another.

Logits cannot: in SmolLM2 one transposed matrix moves them by 0.08 to 0.8 of their size, and four bits by 0.12 to 0.27
(docs/exporting.md). The layer itself moves by at most 0.16 in four bits, and by 1.3 to 1.6 when its matrix is
transposed: for random signs r, |W'r - Wr| / |Wr| is about |W' - W| / |W| (Achlioptas 2003, random projections).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor, nn

from ftlib.errors import FtlibError

LIMIT = 0.35  # between the two
Layers = Mapping[str, Tensor]  # of each layer by its name in the bare model: [rows of its matrix]


def signs(width: int) -> Tensor:
    """The vector of a width, [width] of -1 and 1; always the same."""
    drawn = torch.randint(2, (width,), generator=torch.Generator().manual_seed(width))
    return (2 * drawn - 1).float()


@torch.inference_mode()  # type: ignore[untyped-decorator]
def layers_of(model: Any) -> dict[str, Tensor]:
    """Of a loaded model, or of one with an adapter of PEFT beside it."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {name: _product(layer, width, model.dtype) for name, layer, width in _linear("", bare)}


def farthest(trained: Layers, exported: Layers) -> tuple[str, float]:
    """The layer that is farthest from what was trained, and how far, as a share of its size; ("", 0) without any."""
    found = {name: _apart(wanted, exported.get(name)) for name, wanted in trained.items()}
    return max(found.items(), key=lambda pair: pair[1], default=("", 0.0))


def check_layers(trained: Layers, exported: Layers | None, owner: str) -> float | None:
    """How far the farthest layer is, None where the program shows none. Raises FtlibError for one that is another."""
    if exported is None:
        return None
    name, far = farthest(trained, exported)
    if not far <= LIMIT:
        raise FtlibError(
            f"{owner} is not what was trained: its layer {name} is {far:.2g} of its size apart from the trained one, "
            f"where rounding gives at most {LIMIT:g}."
        )
    return far


def _apart(wanted: Tensor, ours: Tensor | None) -> float:
    if ours is None or ours.shape != wanted.shape:
        return math.inf
    return float((ours - wanted).norm() / wanted.norm().clamp_min(1e-12))


def _linear(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """Each linear layer with its adapter, and how wide its input is."""
    if isinstance(module, ModulesToSaveWrapper):  # a layer that was trained whole
        module = module.modules_to_save[module.active_adapters[0]]
    if isinstance(module, TrainableTokensWrapper):
        module = module.token_adapter
    inner = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if isinstance(inner, nn.Linear):
        yield name, module, inner.in_features
        return
    for child, part in module.named_children():
        yield from _linear(f"{name}.{child}" if name else child, part)


def _product(layer: nn.Module, width: int, dtype: torch.dtype) -> Tensor:
    """Without the bias. The vectors are two tokens of one row: adapters look at tokens."""
    device = next(layer.parameters()).device
    given = torch.stack([signs(width), torch.zeros(width)])[None].to(device, dtype)
    (out,) = layer(given).float().cpu()
    return out[0] - out[1]
