"""The keys and values of what a pack has read, so that a row is written on from there and nothing is read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from ftlib.evaluation.greedy import Row

BYTES = 2**25  # of one trial's places in one pass


def places_kept(config: Any, dtype: torch.dtype) -> int:
    """How many places of a model's keys and values take BYTES."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return BYTES // int(2 * config.num_hidden_layers * heads * size * dtype.itemsize)


@dataclass
class Reading:
    """A pass. `layers` are keys and values [trials or 1, heads, M, d]; below the first adapter all trials have one."""

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def left(self, rows: Sequence[Row], trials: Sequence[int], places: Sequence[np.ndarray]) -> Left:
        """What rows of some trials have read at their places."""
        longest = max(map(len, places))
        table = np.stack([np.concatenate([np.zeros(longest - len(row), dtype=np.int64), row]) for row in places])
        seen = np.stack([np.arange(longest) >= longest - len(row) for row in places]).astype(np.int64)
        device = self.layers[0][0].device
        of, at = torch.tensor(trials, device=device).unsqueeze(1), torch.from_numpy(table).to(device)

        def taken(kept: Tensor) -> Tensor:
            return kept.transpose(1, 2)[of if len(kept) > 1 else torch.zeros_like(of), at].transpose(1, 2)

        layers = [(taken(keys), taken(values)) for keys, values in self.layers]
        return Left(list(rows), layers, torch.from_numpy(seen).to(device))


@dataclass
class Left:
    """Rows that are to be written on. `layers` are [rows, heads, places, d], pads in front; `seen` [rows, places] says
    which are none."""

    rows: list[Row]
    layers: list[tuple[Tensor, Tensor]]
    seen: Tensor

    @staticmethod
    def joined(parts: Sequence[Left]) -> Left:
        """All rows, those of one slot side by side."""
        longest = max(part.seen.shape[1] for part in parts)
        rows = [row for part in parts for row in part.rows]
        order = sorted(range(len(rows)), key=lambda number: rows[number].slot)
        index = torch.tensor(order, device=parts[0].seen.device)

        def whole(tensors: Sequence[Tensor]) -> Tensor:
            return torch.cat([pad(one, (0, 0, longest - one.shape[-2], 0)) for one in tensors])[index]

        layers = zip(*(part.layers for part in parts), strict=True)
        return Left(
            [rows[number] for number in order],
            [(whole([keys for keys, _ in layer]), whole([values for _, values in layer])) for layer in layers],
            whole([part.seen.unsqueeze(-1) for part in parts]).squeeze(-1),
        )

    @property
    def cache(self) -> DynamicCache:
        """The keys and values as transformers' models take them."""
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, number)
        return cache
