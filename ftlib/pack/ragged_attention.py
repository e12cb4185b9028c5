"""Attention of a pack's spans by a kernel for sequences of any lengths (FlashAttention's, in torch): no padding.

A kernel of that kind puts a span's queries at the end of its keys, which is where they stand on their path. It exists
for CUDA, and for 16 bits alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ftlib.models.to_device import sent
from ftlib.pack.gather import Gather

if TYPE_CHECKING:
    from ftlib.pack.token_layout import Block

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Ragged:
    """The spans of all trials one behind the other."""

    queries: Gather  # from all N * M places to the spans' own
    keys: Gather  # to the spans' paths
    back: Gather  # from the spans' own to all places
    begins: tuple[Tensor, Tensor]  # int32 [spans + 1], where each span's queries and keys begin
    longest: tuple[int, int]

    @classmethod
    def of(cls, blocks: Sequence[Block], width: int, device: torch.device) -> Ragged:
        """`width`: the places of a trial, M."""
        paths = [number * width + span.path for number, block in enumerate(blocks) for span in block.spans]
        depths = [span.depth for block in blocks for span in block.spans]
        own = [path[depth:] for path, depth in zip(paths, depths, strict=True)]
        places = len(blocks) * width
        queries = Gather(np.concatenate(own), places, device)
        keys = Gather(np.concatenate(paths), places, device) if any(depths) else queries
        begins = _begins(own, device), _begins(paths, device)
        return cls(queries, keys, queries.inverse(), begins, (max(map(len, own)), max(map(len, paths))))

    def attention(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None) -> Tensor:
        """[N * M, H, d] queries, keys and values of all places, to [N * M, H, d]."""
        queries, keys, values = self.queries(query), self.keys(key), self.keys(value)
        left = -1 if window is None else window - 1
        out = kernel()(queries, keys, values, *self.begins, *self.longest, scale=scale, window_size=(left, 0))
        return self.back(out)


def _begins(paths: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return sent(torch.from_numpy(np.cumsum([0, *map(len, paths)], dtype=np.int32)), device)


def kernel() -> Callable[..., Any]:
    """torch's varlen_attn, with fewer heads of keys than of queries also where it does not know them (before 2.12)."""
    from torch.nn.attention.varlen import varlen_attn

    knows = "enable_gqa" in inspect.signature(varlen_attn).parameters

    def attend(query: Tensor, key: Tensor, value: Tensor, *places: Any, **options: Any) -> Any:
        times = query.shape[1] // key.shape[1]
        if times > 1 and knows:
            options["enable_gqa"] = True
        elif times > 1:
            key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        return varlen_attn(query, key, value, *places, **options)

    return attend
