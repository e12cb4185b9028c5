"""Where the tokens of several trials' batches stand in one forward pass.

Each trial has a row of M places: its sequences one behind the other, and what sequences begin with alike once. Only the
whole of a trial is rounded up to BLOCK places. So no trial computes the padding of its sequences, and a trial's places,
and the vector instructions that meet there, depend on its own sequences alone: what a token becomes is the same bits
whoever else is in the pack.

    places     [prefix][rest of 0][rest of 1 ...][another sequence ....][none, up to the longest trial]   M
    attention  runs over spans of like lengths together, whichever trial they belong to (`span_attention`)
    picked     P places whose next token (or, of a classifier, whose text) counts
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ftlib.methods.pack_losses import Tokens
from ftlib.models.to_device import sent
from ftlib.pack.gather import Gather
from ftlib.pack.prefix_trie import Span, apart, together
from ftlib.pack.ragged_attention import Ragged

BLOCK = 16  # places: matrix kernels give each whole block of this many rows the same bits wherever it stands


Kind = tuple[int, int, bool]  # of spans: places and those of their paths, both rounded up; whether tokens come before


def rounded(count: int) -> int:
    """The next multiple of BLOCK that is not below the number."""
    return math.ceil(count / BLOCK) * BLOCK


@dataclass(frozen=True)
class Block:
    """One trial's sequences as arrays, made once and used for every trial that has the same."""

    ids: np.ndarray  # [M of this trial]
    positions: np.ndarray
    spans: tuple[Span, ...]
    picked: np.ndarray  # [P of this trial] places; one may be picked for several sequences
    targets: np.ndarray
    owners: np.ndarray  # the number of the sequence that each picked place belongs to
    places: tuple[np.ndarray, ...]  # of each sequence's tokens
    tokens: int  # of the sequences, what they share counted for each

    @classmethod
    def of(cls, sequences: Sequence[Tokens], share: bool = True) -> Block:
        """`share`: what sequences begin with alike may be computed once."""
        standing = (together if share else apart)([sequence.ids for sequence in sequences])
        ids = np.zeros(rounded(standing.places), dtype=np.int64)
        positions = np.zeros_like(ids)
        for sequence, places in zip(sequences, standing.of, strict=True):
            ids[places] = sequence.ids
            positions[places] = np.arange(len(places))
        found = zip(sequences, standing.of, strict=True)
        return cls(
            ids=ids,
            positions=positions,
            spans=standing.spans,
            picked=np.concatenate([places[sequence.picked] for sequence, places in found]),
            targets=np.concatenate([sequence.targets for sequence in sequences]),
            owners=np.repeat(np.arange(len(sequences)), [len(sequence.picked) for sequence in sequences]),
            places=standing.of,
            tokens=sum(len(sequence.ids) for sequence in sequences),
        )

    @cached_property
    def attended(self) -> dict[Kind, tuple[np.ndarray, np.ndarray, list[int]]]:
        """Of the spans of each kind: their places [spans, queries] and their paths' [spans, keys], with -1 behind both,
        and how many tokens come before each."""
        kinds: dict[Kind, list[Span]] = {}
        for span in self.spans:
            kinds.setdefault((rounded(span.length), rounded(len(span.path)), span.depth > 0), []).append(span)
        return {
            (queries, keys, deep): (
                np.stack([filled(span.path[span.depth :], queries, -1) for span in spans]),
                np.stack([filled(span.path, keys, -1) for span in spans]),
                [span.depth for span in spans],
            )
            for (queries, keys, deep), spans in kinds.items()
        }

    @property
    def shares(self) -> bool:
        """Whether a place serves several sequences."""
        return sum(span.length for span in self.spans) < self.tokens


@dataclass(frozen=True)
class Group:
    """Spans of like length that attention computes in one call."""

    count: int
    queries: int  # places of each, rounded up
    keys: int
    depths: Tensor | None  # [count or 1, 1, 1, 1] tokens before each span; None: no tokens before any
    masks: dict[int | None, Tensor] = field(default_factory=dict)  # by the window

    def mask(self, window: int | None, device: torch.device) -> Tensor | None:
        """[count or 1, 1, queries, keys]: which keys a query sees. None: those up to its own. A span's rounded-up end
        is behind all that is real."""
        window = window if window and self.keys > window else None
        if self.depths is None and window is None:
            return None
        if window not in self.masks:
            own = torch.arange(self.queries, device=device).unsqueeze(1) + (0 if self.depths is None else self.depths)
            apart = own - torch.arange(self.keys, device=device)
            seen = (apart >= 0) & (apart < (window or self.keys))
            self.masks[window] = seen.view(-1, 1, self.queries, self.keys)
        return self.masks[window]


@dataclass(frozen=True)
class Layout:
    """The blocks of N trials side by side, as tensors. `alike`: all N see the same tokens, so `ids` has one row."""

    ids: Tensor  # [N or 1, M]
    positions: Tensor  # [N or 1, M]
    picked: Gather  # from all N * M places to [N * P]; what a trial has fewer than P of are no places
    targets: Tensor  # [N, P]
    counts: tuple[int, ...]  # how many of the P are each trial's
    owners: tuple[Tensor, ...]  # of each trial, the sequence that each of its picked places belongs to
    groups: tuple[Group, ...]
    queries: Gather | None  # from all places to the groups' spans, padded; None: they are in order already
    keys: Gather | None  # to the spans' paths, padded
    back: Gather | None  # from the groups' spans to all places
    one: Layout | None  # of the first block alone, where all are alike: layers below the first adapter see one row
    blocks: tuple[Block, ...]

    @cached_property
    def ragged(self) -> Ragged:
        """The spans without their padding, for a kernel that needs none."""
        return Ragged.of(self.blocks, self.ids.shape[1], self.ids.device)

    @cached_property
    def looked(self) -> Gather:
        """From all N * M places to those that are picked, each once: as many for every trial."""
        width, places = self.ids.shape[1], len(self.blocks) * self.ids.shape[1]
        own = [np.unique(block.picked) for block in self.blocks]
        most = rounded(max(map(len, own)))
        index = [filled(number * width + some, most, places) for number, some in enumerate(own)]
        return Gather(np.concatenate(index), places, self.ids.device)

    @property
    def looks_at_few(self) -> bool:
        """Whether some places are picked, and at most half of them."""
        width: int = self.ids.shape[1]
        return 0 < 2 * max(len(block.picked) for block in self.blocks) <= width

    @classmethod
    def of(cls, blocks: Sequence[Block], device: torch.device) -> Layout:
        width = max(len(block.ids) for block in blocks)
        most = rounded(max(len(block.picked) for block in blocks))
        alike = all(block is blocks[0] for block in blocks)
        shown = blocks[:1] if alike else blocks

        def table(arrays: Sequence[np.ndarray], columns: int) -> Tensor:
            return sent(torch.from_numpy(np.stack([filled(array, columns, 0) for array in arrays])), device)

        owners = {id(block): sent(torch.from_numpy(block.owners), device) for block in blocks}
        places = len(blocks) * width
        picked = [filled(number * width + block.picked, most, places) for number, block in enumerate(blocks)]
        groups, queries, keys, back = _attended(blocks, width, device)
        return cls(
            ids=table([block.ids for block in shown], width),
            positions=table([block.positions for block in shown], width),
            picked=Gather(np.concatenate(picked), places, device),
            targets=table([block.targets for block in blocks], most),
            counts=tuple(len(block.picked) for block in blocks),
            owners=tuple(owners[id(block)] for block in blocks),
            groups=groups,
            queries=queries,
            keys=keys,
            back=back,
            one=cls.of(blocks[:1], device) if alike and len(blocks) > 1 else None,
            blocks=tuple(blocks),
        )

    def pick(self, hidden: Tensor) -> Tensor:
        """hidden [N, M, h] to the hidden states [N, P, h] at the places that count."""
        return self.picked(hidden.flatten(0, 1)).view(*self.targets.shape, -1)


def _attended(
    blocks: Sequence[Block], width: int, device: torch.device
) -> tuple[tuple[Group, ...], Gather | None, Gather | None, Gather | None]:
    """The groups, and the gathers to their queries, to their keys, and back to the N * width places."""
    places = len(blocks) * width
    groups: list[Group] = []
    own: list[np.ndarray] = []
    paths: list[np.ndarray] = []
    starts: list[int] = []
    for kind in sorted({kind for block in blocks for kind in block.attended}):
        found = [(n * width, block.attended[kind]) for n, block in enumerate(blocks) if kind in block.attended]
        depths = [depth for _, (_, _, some) in found for depth in some]
        queries, keys, deep = kind
        groups.append(Group(len(depths), queries, keys, _depths(depths, device) if deep else None))
        starts += [start for start, _ in found]
        own += [some.ravel() for _, (some, _, _) in found]
        paths += [some.ravel() for _, (_, some, _) in found]
    index = _shifted(own, starts, places)
    deep = any(group.depths is not None for group in groups)
    if not deep and np.array_equal(index, np.arange(places)):
        return tuple(groups), None, None, None
    to_own = Gather(index, places, device)
    to_paths = Gather(_shifted(paths, starts, places), places, device) if deep else to_own
    return tuple(groups), to_own, to_paths, to_own.inverse()


def _depths(depths: Sequence[int], device: torch.device) -> Tensor:
    return sent(torch.tensor(depths if len(set(depths)) > 1 else depths[:1]), device).view(-1, 1, 1, 1)


def filled(array: np.ndarray, length: int, filler: int) -> np.ndarray:
    """An array of this length, whose end is the filler."""
    found = np.full(length, filler, dtype=np.int64)
    found[: len(array)] = array
    return found


def _shifted(parts: Sequence[np.ndarray], starts: Sequence[int], filler: int) -> np.ndarray:
    """All parts, each from its start on, with the filler where they have -1."""
    whole = np.concatenate(parts)
    return np.where(whole < 0, filler, whole + np.repeat(starts, [len(part) for part in parts]))
