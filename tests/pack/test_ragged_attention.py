"""Attention without padding is attention with it; the kernel, which a CPU has not, is written out here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ftlib.methods.pack_losses import Tokens
from ftlib.pack import ragged_attention
from ftlib.pack.span_attention import _attention, laid_out
from ftlib.pack.token_layout import Block, Layout

HEADS, KEYS, WIDTH = 4, 2, 8


def written_out(query: Any, key: Any, value: Any, q: Any, k: Any, *longest: int, scale: float, window_size: Any) -> Any:
    """FlashAttention's mask: the queries of a sequence are the last of its keys."""
    key, value = (part.repeat_interleave(HEADS // KEYS, 1) for part in (key, value))
    out, left = torch.zeros_like(query), window_size[0]
    for span in range(len(q) - 1):
        own, path = slice(q[span], q[span + 1]), slice(k[span], k[span + 1])
        count, keys = own.stop - own.start, path.stop - path.start
        behind = (torch.arange(count) + keys - count).unsqueeze(1) - torch.arange(keys)
        hidden = (behind < 0) | ((left >= 0) & (behind > left))
        scores = torch.einsum("qhd,khd->hqk", query[own], key[path]) * scale
        out[own] = torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), value[path])
    return out


def block(*sequences: list[int]) -> Block:
    nothing = np.zeros(1, dtype=np.int64)
    return Block.of([Tokens(np.asarray(ids), nothing, nothing) for ids in sequences])


@pytest.mark.parametrize("window", [None, 5])
def test_spans_without_padding(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    start = list(range(2, 22))
    blocks = [block([*start, 1, 2, 3], [*start, 3, 1], [9] * 17), block([5] * 30, [6, 5, 4])]
    assert any(span.depth for span in blocks[0].spans)
    layout = Layout.of(blocks, torch.device("cpu"))
    places = layout.ids.shape[1]
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, places, WIDTH, generator=draw) for heads in (HEADS, KEYS, KEYS))
    module = type("Module", (), {"is_causal": True, "num_key_value_groups": HEADS // KEYS})()
    with laid_out(layout):
        padded, _ = _attention(module, query, key, value, None, scaling=0.3, sliding_window=window)
    monkeypatch.setattr(ragged_attention, "kernel", lambda: written_out)
    flat = [part.transpose(1, 2).flatten(0, 1) for part in (query, key, value)]
    ragged = layout.ragged.attention(*flat, 0.3, window).view_as(padded)
    assert torch.allclose(ragged, padded, atol=1e-5)
