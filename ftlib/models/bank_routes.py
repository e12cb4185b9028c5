"""Which slot of a bank each row of a batch belongs to: a `Route` where adapters train, a `Mix` where they serve."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ftlib.models.to_device import sent

DRAWS = 2**16  # what 16 bits can be


@dataclass(frozen=True)
class Dropout:
    """The dropout of one slot in one forward pass. Its masks depend on the trial alone: seed, step, batch, layer."""

    p: float  # of the adapter's inputs
    key: tuple[int, ...]  # (seed, step, batch of the step)
    tokens: int  # how many of the M tokens are the trial's own

    def mask(self, layer: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """0 or 1 / (1 - p) in `shape`, drawn anew and alike whenever it is asked for.

        On a CPU, p is met to 1 / 65536: torch's generator takes 20 ns a number there, and 16 bits of this one 1 ns.
        """
        digest = hashlib.blake2b(repr((*self.key, layer)).encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "little") >> 1
        if like.device.type != "cpu":
            generator = torch.Generator(like.device).manual_seed(seed)
            kept = torch.empty(*shape, device=like.device).bernoulli_(1 - self.p, generator=generator)
            return (kept / (1 - self.p)).to(like.dtype)
        count, stay = math.prod(shape), max(1, round((1 - self.p) * DRAWS))
        drawn = np.random.SFC64(seed).random_raw(math.ceil(count / 4)).view(np.uint16)[:count]
        return torch.from_numpy(drawn < stay).view(*shape).to(like.dtype).mul_(DRAWS / stay)


@dataclass
class Route:
    """Which slot each of the N rows belongs to. Slots that stand side by side need no copy."""

    slots: Sequence[int]
    dropouts: Sequence[Dropout | None] = ()

    def __post_init__(self) -> None:
        first = self.slots[0]
        together = list(self.slots) == list(range(first, first + len(self.slots)))
        self.span = slice(first, first + len(self.slots)) if together else None
        self._index: Tensor | None = None

    def masks(self, layer: str, x: Tensor, p: float | None = None) -> Tensor | None:
        """[N, M, width], or [1, M, width] where it is the same for all; None where nothing is dropped. What a trial
        has fewer than M of stays as it is. `p`: the base's; None is that of each trial's adapter."""
        drops = [drop if drop is None or p is None else replace(drop, p=p) for drop in self.dropouts]
        if not any(drop is not None and drop.p for drop in drops):
            return None
        shown = drops[:1] if all(drop == drops[0] for drop in drops) else drops
        masks = torch.ones(len(shown), *x.shape[1:], dtype=x.dtype, device=x.device)
        for mask, drop in zip(masks, shown, strict=True):
            if drop is not None and drop.p:
                mask[: drop.tokens] = drop.mask(layer, (drop.tokens, x.shape[-1]), x)[: len(mask)]
        return masks

    def of(self, stack: Tensor) -> Tensor:
        """The rows of a stack [slots, ...], in the order of the route."""
        return stack[self.span] if self.span is not None else stack.index_select(0, self.index(stack.device))

    def add(self, stack: Tensor, left: Tensor, right: Tensor) -> None:
        """Adds the products left @ right, one a slot, to the rows of a stack."""
        products = bmm(left, right)  # not baddbmm_: into a strided result it multiplies one slot at a time
        if self.span is not None:
            stack[self.span].add_(products)
        else:
            stack.index_add_(0, self.index(stack.device), products.to(stack.dtype))

    def index(self, device: torch.device) -> Tensor:
        """The slots, as numbers on a device. They are sent once, and nothing waits for them."""
        if self._index is None:
            self._index = sent(torch.tensor(self.slots), device)
        return self._index


class Mix:
    """Which slot each of n rows has, when a batch is served and nothing is trained: any slot any number of times.

    The slots in use are the first ones, 0 to G - 1, so that their weights are one view and are read once, however many
    rows share them. Rows go into a grid of G slots by the most rows that one of them has; its gaps hold row 0. A row
    without a slot (None) is in no grid: the base answers it alone. One row at least has a slot. `weights` [G, D] stand
    in for the bank's own, with their scales in them: of a bank that trains (`scaled`).
    """

    def __init__(
        self, slots: Sequence[int | None], device: torch.device | None = None, weights: Tensor | None = None
    ) -> None:
        self.weights = weights
        adapted = [(row, slot) for row, slot in enumerate(slots) if slot is not None]
        members: list[list[int]] = [[] for _ in range(max(slot for _, slot in adapted) + 1)]
        for row, slot in adapted:
            members[slot].append(row)
        self.rows, self.groups = len(slots), len(members)
        width = max(map(len, members))
        order = [row for group in members for row in [*group, *[0] * (width - len(group))]]
        self.pick: Tensor | None = None
        self.adapted: Tensor | None = None  # the rows that have a slot, where some have none
        if len(adapted) < self.rows:
            self.adapted = torch.tensor([row for row, _ in adapted], device=device)
        if order != list(range(self.rows)):
            places = [0] * self.rows
            for slot, group in enumerate(members):
                for place, row in enumerate(group):
                    places[row] = slot * width + place
            self.pick = torch.tensor(order, device=device)
            self.place = torch.tensor([places[row] for row, _ in adapted], device=device)

    def add(self, out: Tensor, x: Tensor, a: Tensor, b: Tensor) -> None:
        """Adds each row's x A B, in place. x [n, M, in], out [n, M, out], A [G, in, R], B [G, R, out]."""
        if self.groups == 1 and self.adapted is None:
            out.view(-1, out.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]) @ a[0], b[0])
            return
        grid = x if self.pick is None else x.index_select(0, self.pick)
        low = torch.bmm(grid.reshape(self.groups, -1, x.shape[-1]), a)
        if self.pick is None:
            out.view(self.groups, -1, out.shape[-1]).baddbmm_(low, b)
        else:
            added = torch.bmm(low, b).view(-1, *out.shape[1:])
            added = added.index_select(0, self.place)
            if self.adapted is None:
                out += added
            else:
                out.index_add_(0, self.adapted, added)


def bmm(left: Tensor, right: Tensor) -> Tensor:
    """The products of all slots, one slot's the same bits as among several.

    A single product MKL may divide among threads along the sum, where of several each has a thread: then one is two.
    """
    if len(left) > 1 or left.device.type != "cpu" or torch.get_num_threads() == 1:
        return torch.bmm(left, right)
    return torch.bmm(left.expand(2, -1, -1), right.expand(2, -1, -1))[:1]
