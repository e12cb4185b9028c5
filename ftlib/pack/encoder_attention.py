"""Attention of an encoder over the sequences of several trials: every token sees its whole sequence, and no other.

Sequences of like length are computed together, rounded up. A causal token sees nothing of a rounded-up end, which lies
behind it; an encoder's tokens look both ways, so that here a mask ends each sequence where it ends. Dropout of
attention is each trial's own (`base_dropout`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from ftlib.models.bank_routes import Dropout
from ftlib.pack.base_dropout import BaseDropout
from ftlib.pack.gather import Gather
from ftlib.pack.token_layout import Block, Layout, filled, rounded

BOTH_WAYS = "ftlib_pack_both_ways"  # our name among transformers' attention implementations


@dataclass(frozen=True)
class Group:
    """Sequences of one rounded length, trial after trial."""

    length: int
    counts: tuple[int, ...]  # of each trial
    real: Tensor | None  # [sequences, 1, 1, length]: the places that a token may see; None: all of them

    @classmethod
    def of(cls, length: int, places: Sequence[Sequence[np.ndarray]], device: torch.device) -> Group:
        """Of the places of each trial's sequences."""
        ends = torch.tensor([len(one) for of_trial in places for one in of_trial], device=device)
        real = torch.arange(length, device=device) < ends.unsqueeze(1)
        return cls(length, tuple(map(len, places)), None if bool(real.all()) else real[:, None, None])

    def dropped(self, drops: Sequence[Dropout | None], name: str, like: Tensor) -> Tensor:
        """[sequences, H, length, length], or of one trial where it is the same for all: 0 or 1 / (1 - p)."""
        alike = all(drop == drops[0] for drop in drops) and len(set(self.counts)) == 1
        shown = [(drops[0], self.counts[0])] if alike else zip(drops, self.counts, strict=True)
        shapes = [(drop, (count, like.shape[1], self.length, self.length)) for drop, count in shown]
        layer = f"{name}/{self.length}"
        return torch.cat(
            [like.new_ones(shape) if drop is None else drop.mask(layer, shape, like) for drop, shape in shapes]
        )


@dataclass(frozen=True)
class Sequences:
    """Where the sequences of a pass are."""

    layout: Layout
    groups: list[Group]
    trials: int
    there: Gather  # from all N * M places to the groups' sequences
    back: Gather
    one: Sequences | None  # of the first trial alone, where all are alike

    @classmethod
    def of(cls, blocks: Sequence[Block], layout: Layout) -> Sequences:
        device, width = layout.ids.device, layout.ids.shape[1]
        lengths = sorted({rounded(len(places)) for block in blocks for places in block.places})
        groups, index = [], []
        for length in lengths:
            found = [[one for one in block.places if rounded(len(one)) == length] for block in blocks]
            groups.append(Group.of(length, found, device))
            index += [filled(n * width + one, length, len(blocks) * width) for n, of in enumerate(found) for one in of]
        there = Gather(np.concatenate(index), len(blocks) * width, device)
        one = cls.of(blocks[:1], layout.one) if layout.one is not None else None
        return cls(layout, groups, len(blocks), there, there.inverse(), one)


_CURRENT: list[Sequences] = []


@contextmanager
def attending(blocks: Sequence[Block], layout: Layout) -> Iterator[None]:
    """Within, an encoder's attention knows where the sequences end; backward too, for layers computed again there."""
    _CURRENT.append(Sequences.of(blocks, layout))
    try:
        yield
    finally:
        _CURRENT.pop()


def current() -> Sequences | None:
    """The sequences of the pass that is under way."""
    return _CURRENT[-1] if _CURRENT else None


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, dropout: float = 0.0, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention [N, H, M, d] within each sequence, both ways."""
    name, drops = _drops(getattr(module, "dropout", None) or getattr(module, "attention_dropout", None))
    sequences, n = _CURRENT[-1], len(query)
    if n == 1 and sequences.one is not None and all(part == drops[0] for part in drops):
        sequences, drops = sequences.one, drops[:1]
    scale = kwargs.get("scaling")
    parts = [_rows(tensor, sequences) for tensor in (query, key, value)]
    outputs, start = [], 0
    for group in sequences.groups:
        count = sum(group.counts)
        rows = slice(start, start := start + count * group.length)
        q, k, v = (part[rows].view(count, group.length, *part.shape[1:]).transpose(1, 2) for part in parts)
        if any(drops):
            found = _weighted(q, k, v, group.real, group.dropped(drops, name, q), scale)
        else:
            found = scaled_dot_product_attention(q, k, v, attn_mask=group.real, scale=scale)
        outputs.append(found.transpose(1, 2).flatten(0, 1))
    whole = sequences.back(torch.cat(outputs))
    return whole.view(sequences.trials, -1, *whole.shape[1:]), None


def _rows(x: Tensor, sequences: Sequences) -> Tensor:
    """[N or 1, H, M, d] to the groups' rows [rows, H, d]."""
    return sequences.there(x.expand(sequences.trials, -1, -1, -1).transpose(1, 2).flatten(0, 1))


def _drops(dropout: Any) -> tuple[str, list[Dropout | None]]:
    """The layer's name, and what is dropped of each trial's attention."""
    if not isinstance(dropout, BaseDropout) or dropout.route is None:
        return "", []
    drops = dropout.route.dropouts
    return dropout.name, [None if drop is None else replace(drop, p=dropout.p) for drop in drops]


def _weighted(q: Tensor, k: Tensor, v: Tensor, real: Tensor | None, kept: Tensor, scale: float | None) -> Tensor:
    """softmax(q k^T) v, of whose weights some are dropped."""
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(2, 3)
    if real is not None:
        scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)
    dropped = weights.view(-1, *kept.shape) * kept if len(kept) < len(weights) else weights * kept
    return dropped.view(weights.shape) @ v


# It has no mask function: for such an attention transformers makes no mask, and asks the device for nothing.
AttentionInterface.register(BOTH_WAYS, _attention)
