"""Shifted sparse attention (S2-Attn of LongLoRA, Chen et al. 2024, arXiv:2309.12307): long rows at the price of short
ones, in training alone.

Tokens see those before them in their group of so many. In half of the heads, groups begin half a group later, so that
what is known goes from group to group. Evaluations and answers have full attention. The paper rolls the tokens around
the end of a row, where first and last ones meet in a group; here the first and the last group are shorter instead, and
no token sees a later one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ftlib.errors import ConfigError

SHIFTED = "ftlib_shifted"  # our name among transformers' attention implementations
GROUP = "shifted_group"  # the attribute of an attention module: tokens of a group


def shift_attention(model: PreTrainedModel, group: int) -> None:
    """Gives a decoder shifted sparse attention in training, with groups of `group` tokens, an even number.

    Of an odd number of heads, one more is not shifted. Raises ConfigError for a model whose attention does not go
    through transformers' interface, or that looks both ways.
    """
    layers = [part for part in model.modules() if getattr(part, "is_causal", False) and hasattr(part, "layer_idx")]
    if not layers or not model.is_backend_compatible():
        raise ConfigError(
            f"train.shifted_attention: {type(model).__name__} is no decoder whose attention is known: leave it out."
        )
    for layer in layers:
        setattr(layer, GROUP, group)
    model.set_attn_implementation(SHIFTED)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Queries [B, H, L, d], keys and values [B, H or fewer, L, d], to [B, L, H, d]."""
    group, length = getattr(module, GROUP), query.shape[2]
    if not module.training or length <= group or key.shape[2] != length:
        full: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
        return full
    times = query.shape[1] // key.shape[1]
    halves = [part.chunk(2, dim=1) for part in (query, repeat_kv(key, times), repeat_kv(value, times))]
    outputs = [
        _grouped(queries, keys, values, attention_mask, group, front, dropout, scaling)
        for queries, keys, values, front in zip(*halves, (0, group // 2), strict=True)
    ]
    return torch.cat(outputs, dim=1).transpose(1, 2), None


def _grouped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    group: int,
    front: int,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    """Attention within groups: [B, H, L, d] each, and so its output. `front` places are put before the first token, and
    as many behind the last as fill up its group."""
    rows, length = query.shape[0], query.shape[2]
    back = -(front + length) % group
    queries, keys, values = (_cut(pad(part, (0, 0, front, back)), group) for part in (query, key, value))
    allowed = _allowed(mask, length, group, front, back, query.device)
    allowed = allowed.repeat(rows // allowed.shape[0], 1, 1, 1).flatten(0, 1).unsqueeze(1)
    out = scaled_dot_product_attention(queries, keys, values, attn_mask=allowed, dropout_p=dropout, scale=scaling)
    return out.unflatten(0, (rows, -1)).transpose(1, 2).flatten(2, 3)[:, :, front : front + length]


def _cut(x: Tensor, group: int) -> Tensor:
    """[B, H, n * group, d] to [B * n, H, group, d]."""
    return x.unflatten(2, (-1, group)).transpose(1, 2).flatten(0, 1)


def _allowed(mask: Tensor | None, length: int, group: int, front: int, back: int, device: torch.device) -> Tensor:
    """Which keys each query sees: [B or 1, n, group, group]. A place that was put there sees itself alone."""
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
    seen = mask if mask.dtype == torch.bool else mask == 0
    seen = pad(seen[:, 0], (front, back, front, back)).unflatten(1, (-1, group)).unflatten(3, (-1, group))
    blocks = seen.diagonal(dim1=1, dim2=3).movedim(-1, 1)
    return blocks | torch.eye(group, dtype=torch.bool, device=device)


AttentionInterface.register(SHIFTED, _attention)
AttentionMaskInterface.register(SHIFTED, sdpa_mask)
