"""The last MLP of a decoder, computed only at the places that somebody looks at.

What an evaluation wants is what follows a few places: the tokens of the answers. All layers but the last serve the
attention of the layer above at every place. Above the last attention, a place serves itself alone. The MLP is three
quarters of a layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ftlib.pack.span_attention import layout_now
from ftlib.pack.token_layout import Layout

CALLED = ".mlp"  # in transformers, of most decoders; others are computed as they are


def look_where_picked(body: nn.Module) -> None:
    """Changes the last MLP of a body: without gradients its outputs are zeros where no place is picked."""
    found = [module for name, module in body.named_modules() if name.endswith(CALLED)]
    if not found:
        return
    mlp, whole = found[-1], found[-1].forward

    def forward(hidden: Tensor, *more: Any, **named: Any) -> Any:
        layout = None if torch.is_grad_enabled() or more or named else _of(hidden)
        if layout is None:
            return whole(hidden, *more, **named)
        some = layout.looked(hidden.flatten(0, 1)).view(len(hidden), -1, hidden.shape[-1])
        return layout.looked.inverse()(whole(some).flatten(0, 1)).view(hidden.shape)

    mlp.forward = forward


def _of(hidden: Tensor) -> Layout | None:
    """The layout of hidden states [N, M, h]; None where they have another shape, or all places are looked at."""
    layout = layout_now()
    if layout is not None and len(hidden) == 1 and layout.one is not None:
        layout = layout.one
    if layout is None or hidden.shape[:-1] != (len(layout.blocks), layout.ids.shape[1]):
        return None
    return layout if layout.looks_at_few else None
