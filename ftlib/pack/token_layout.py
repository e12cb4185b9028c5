"""Where the tokens of several trials' batches stand in one forward pass.

Each trial has a row of M places: its sequences one behind the other, each rounded up to BLOCK places. So no trial
computes the padding of its longest sequence, and a trial's places, and the vector instructions that meet there, depend
on its own sequences alone: what a token becomes is the same bits whoever else is in the pack.

    places     [sequence 0 ....][sequence 1 ..........][sequence 2 ....][none, up to the longest trial]   M
    attention  runs over sequences of one length together, whichever trial they belong to
    picked     P places whose next token (or, of a classifier, whose text) counts
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from ftlib.methods.pack_losses import Tokens

BLOCK = 16  # places: matrix kernels give each whole block of this many rows the same bits wherever it stands
ATTENTION = "ftlib_pack"  # our name among transformers' attention implementations


def rounded(count: int) -> int:
    """The next multiple of BLOCK that is not below the number."""
    return math.ceil(count / BLOCK) * BLOCK


@dataclass(frozen=True)
class Block:
    """One trial's sequences as arrays, made once and used for every trial that has the same."""

    ids: np.ndarray  # [M of this trial]
    positions: np.ndarray
    lengths: tuple[int, ...]  # rounded, of each sequence
    sizes: tuple[int, ...]  # of each sequence, not rounded
    picked: np.ndarray  # [P of this trial] places
    targets: np.ndarray
    owners: np.ndarray  # the number of the sequence that each picked place belongs to
    tokens: int  # not counting what was rounded up

    @classmethod
    def of(cls, sequences: Sequence[Tokens]) -> Block:
        lengths = tuple(rounded(len(sequence.ids)) for sequence in sequences)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.zeros(starts[-1], dtype=np.int64)
        positions = np.zeros(starts[-1], dtype=np.int64)
        for sequence, start in zip(sequences, starts, strict=False):
            ids[start : start + len(sequence.ids)] = sequence.ids
            positions[start : start + len(sequence.ids)] = np.arange(len(sequence.ids))
        return cls(
            ids=ids,
            positions=positions,
            lengths=lengths,
            sizes=tuple(len(sequence.ids) for sequence in sequences),
            picked=np.concatenate(
                [sequence.picked + start for sequence, start in zip(sequences, starts, strict=False)]
            ),
            targets=np.concatenate([sequence.targets for sequence in sequences]),
            owners=np.repeat(np.arange(len(sequences)), [len(sequence.picked) for sequence in sequences]),
            tokens=sum(len(sequence.ids) for sequence in sequences),
        )


@dataclass(frozen=True)
class Layout:
    """The blocks of N trials side by side, as tensors. `alike`: all N see the same tokens, so `ids` has one row."""

    ids: Tensor  # [N or 1, M]
    positions: Tensor  # [N or 1, M]
    picked: Tensor  # [N, P] places; what a trial has fewer than P of are places of its own, and count for nothing
    targets: Tensor  # [N, P]
    counts: tuple[int, ...]  # how many of the P are each trial's
    owners: tuple[Tensor, ...]  # of each trial, the sequence that each of its picked places belongs to
    groups: tuple[tuple[int, int], ...]  # (sequences, their rounded length), in the order of `order`
    order: Tensor | None  # all trials' places, sequences of one length together; None: they are in order already
    back: Tensor | None  # for each of the N * M places, where it is in `order`; one past the end for no sequence
    alike: bool
    one: Layout | None  # of the first block alone, where all are alike: layers below the first adapter see one row

    @classmethod
    def of(cls, blocks: Sequence[Block], device: torch.device) -> Layout:
        width = max(len(block.ids) for block in blocks)
        most = rounded(max(len(block.picked) for block in blocks))
        alike = all(block is blocks[0] for block in blocks)
        shown = blocks[:1] if alike else blocks

        def table(arrays: Sequence[np.ndarray], columns: int) -> Tensor:
            made = np.zeros((len(arrays), columns), dtype=np.int64)
            for row, array in zip(made, arrays, strict=True):
                row[: len(array)] = array
            return torch.from_numpy(made).to(device)

        owners = {id(block): torch.from_numpy(block.owners).to(device) for block in blocks}
        groups, order, back = _groups(blocks, width)
        return cls(
            ids=table([block.ids for block in shown], width),
            positions=table([block.positions for block in shown], width),
            picked=table([block.picked for block in blocks], most),
            targets=table([block.targets for block in blocks], most),
            counts=tuple(len(block.picked) for block in blocks),
            owners=tuple(owners[id(block)] for block in blocks),
            groups=groups,
            order=None if order is None else torch.from_numpy(order).to(device),
            back=None if back is None else torch.from_numpy(back).to(device),
            alike=alike,
            one=cls.of(blocks[:1], device) if alike and len(blocks) > 1 else None,
        )


def _groups(
    blocks: Sequence[Block], width: int
) -> tuple[tuple[tuple[int, int], ...], np.ndarray | None, np.ndarray | None]:
    by_length: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        start = number * width
        for length in block.lengths:
            by_length.setdefault(length, []).append(start)
            start += length
    groups = tuple((len(starts), length) for length, starts in sorted(by_length.items()))
    if len(groups) == 1 and groups[0][0] * groups[0][1] == len(blocks) * width:
        return groups, None, None
    order = np.concatenate(
        [(np.asarray(starts)[:, None] + np.arange(length)).ravel() for length, starts in sorted(by_length.items())]
    )
    back = np.full(len(blocks) * width, len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return groups, order, back


class _Rearrange(torch.autograd.Function):
    """Rows of `x` by `index`, an index past the end giving zeros; backward, the rows of the gradient by `inverse`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        return _taken(x, index, len(inverse))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        index, inverse = ctx.saved_tensors
        return _taken(dy, inverse, len(index)), None, None


def _taken(x: Tensor, index: Tensor, known: int) -> Tensor:
    if len(index) > known:  # more places than rows: some places are nobody's
        x = torch.cat([x, x.new_zeros(1, *x.shape[1:])])
    return x.index_select(0, index)


class _Pick(torch.autograd.Function):
    """hidden [N, M, h] at the picked places: [N, P, h]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, flat: Tensor) -> Tensor:
        ctx.save_for_backward(flat)
        ctx.shape = hidden.shape
        return hidden.flatten(0, 1).index_select(0, flat.flatten()).view(*flat.shape, -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (flat,) = ctx.saved_tensors
        n, m, h = ctx.shape
        found = dy.new_zeros(n * m, h).index_add_(0, flat.flatten(), dy.flatten(0, 1))
        return found.view(n, m, h), None


def pick(hidden: Tensor, layout: Layout) -> Tensor:
    """The hidden states [N, P, h] at the places that count."""
    rows = torch.arange(len(hidden), device=hidden.device).unsqueeze(1) * hidden.shape[1]
    return _Pick.apply(hidden, layout.picked + rows)


_CURRENT: list[Layout] = []


@contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    """Within, attention knows where the sequences are; backward too, for layers that are computed again there."""
    _CURRENT.append(layout)
    try:
        yield
    finally:
        _CURRENT.pop()


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, dropout: float = 0.0, **kwargs: Any
) -> tuple[Tensor, None]:
    """Causal attention [N, H, M, d] within each sequence. A sequence's rounded-up end is behind all that is real."""
    n, _, m, _ = query.shape
    layout = _CURRENT[-1]
    if n == 1 and layout.one is not None:
        layout = layout.one
    parts = [in_order(tensor, layout, n) for tensor in (query, key, value)]
    window = kwargs.pop("sliding_window", None)
    outputs, start = [], 0
    for count, length in layout.groups:
        rows = slice(start, start := start + count * length)
        grouped = [part[rows].view(count, length, *part.shape[1:]).transpose(1, 2) for part in parts]
        mask = _band(length, window, query.device) if window and length > window else None
        out, _ = sdpa_attention_forward(module, *grouped, mask, dropout=dropout, **kwargs)
        outputs.append(out.reshape(count * length, *out.shape[2:]))
    whole = out_of_order(outputs[0] if len(outputs) == 1 else torch.cat(outputs), layout)
    return whole.view(n, m, *whole.shape[1:]), None


def in_order(x: Tensor, layout: Layout, n: int) -> Tensor:
    """[n or 1, H, M, d] to [all places in order, H, d], sequences of one length together."""
    flat = x.expand(n, -1, -1, -1).transpose(1, 2).flatten(0, 1)
    return flat if layout.order is None else _Rearrange.apply(flat, layout.order, layout.back)


def out_of_order(x: Tensor, layout: Layout) -> Tensor:
    """[all places in order, H, d] to [N * M, H, d]."""
    return x if layout.order is None else _Rearrange.apply(x, layout.back, layout.order)


def _band(length: int, window: int, device: torch.device) -> Tensor:
    places = torch.arange(length, device=device)
    apart = places.unsqueeze(1) - places
    return ((apart >= 0) & (apart < window)).view(1, 1, length, length)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, lambda *args, **kwargs: None)
