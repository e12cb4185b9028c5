"""Attention of a pack: each span looks at its own tokens and at what stands before it on its path."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ftlib.pack.gather import Gather
from ftlib.pack.ragged_attention import HALVES
from ftlib.pack.token_layout import Layout

ATTENTION = "ftlib_pack"  # our name among transformers' attention implementations
Kept = list[tuple[Tensor, Tensor]]  # keys and values [N, H, M, d], layer after layer
RAGGED = False  # on CUDA: until `benchmarks/gpu_day.py`, part attention, has shown there that it is right and pays


class _Current(threading.local):
    """What a thread computes: the innermost is the last."""

    def __init__(self) -> None:
        self.stack: list[tuple[Layout, Kept | None]] = []


_CURRENT = _Current()


@contextmanager
def laid_out(layout: Layout, kept: Kept | None = None) -> Iterator[None]:
    """Within, attention knows where the sequences are; backward too, for layers that are computed again there. Keys and
    values are added to `kept`."""
    _CURRENT.stack.append((layout, kept))
    try:
        yield
    finally:
        _CURRENT.stack.pop()


def layout_now() -> Layout | None:
    """That of the sequences that are computed now."""
    return _CURRENT.stack[-1][0] if _CURRENT.stack else None


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, dropout: float = 0.0, **kwargs: Any
) -> tuple[Tensor, None]:
    """[N, H, M, d] queries, keys and values to [N, M, H, d]."""
    n, _, m, _ = query.shape
    layout, kept = _CURRENT.stack[-1]
    if kept is not None:
        kept.append((key, value))
    if n == 1 and layout.one is not None:
        layout = layout.one
    window = kwargs.pop("sliding_window", None)
    if RAGGED and query.dtype in HALVES and query.device.type == "cuda":
        flat = (_rows(query, None, n), _rows(key, None, n), _rows(value, None, n))
        whole = layout.ragged.attention(*flat, kwargs.get("scaling"), window)
        return whole.view(n, m, *whole.shape[1:]), None
    queries, keys, values = _rows(query, layout.queries, n), _rows(key, layout.keys, n), _rows(value, layout.keys, n)
    own = [group.count * group.queries for group in layout.groups]
    path = [group.count * group.keys for group in layout.groups]
    outputs = []
    # Split and not sliced: backward, each slice would be a table of zeros of the whole's size.
    for group, *rows in zip(layout.groups, queries.split(own), keys.split(path), values.split(path), strict=True):
        parts = [_heads(row, group.count) for row in rows]
        mask = group.mask(window, query.device)
        out, _ = sdpa_attention_forward(module, *parts, mask, dropout=dropout, **kwargs)
        outputs.append(out.flatten(0, 1))
    whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    if layout.back is not None:
        whole = layout.back(whole)
    return whole.view(n, m, *whole.shape[1:]), None


def _rows(x: Tensor, gather: Gather | None, n: int) -> Tensor:
    """[n or 1, H, M, d] to the groups' rows [rows, H, d]."""
    flat = x.expand(n, -1, -1, -1).transpose(1, 2).flatten(0, 1)
    return flat if gather is None else gather(flat)


def _heads(rows: Tensor, count: int) -> Tensor:
    """[count * length, H, d] to [count, H, length, d]."""
    return rows.view(count, -1, *rows.shape[1:]).transpose(1, 2)


# It has no mask function: for such an attention transformers makes no mask, and asks the device for nothing.
AttentionInterface.register(ATTENTION, _attention)
