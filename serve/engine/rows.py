"""The KV cache of a batch whose rows come and go: rows of any length, their newest token in the same column.

    columns      0 . . begin . . . . . . . . . . end . .
    row 0              [ 8 tokens, the longest   ]
    row 1                      [ 6 tokens        ]
    row 2                                [ 3     ]

Rows that end together are what transformers knows as left padding, so masks, sliding windows and positions work in
every model as they do in `generate`. All rows write the same column, [begin, end) is a view, and a row that leaves is
replaced by the last one: no step copies what is already there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

COLUMNS = 256  # at first; they double
KEPT = 1024  # columns; a batch that was larger gives its memory back when its last row has left


class RowCache(Cache):
    """Keys and values [rows, heads, columns, dim] a layer. Buffers grow and are used again."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.layers: list[Any]
        self.lengths: list[int] = []  # of each row, in tokens
        self.begin = self.end = 0

    @property
    def width(self) -> int:
        """The tokens of the longest row."""
        return self.end - self.begin

    def join(self, filled: Cache, row: int, length: int) -> None:
        """Takes the first `length` tokens of a row of another cache as its own last row."""
        if not self.layers:
            self.layers = [_Layer(self, layer.keys, layer.values) for layer in filled.layers]
        self._reserve(len(self.lengths) + 1, max(length, self.width) + 1)
        if length > self.end:
            self._move(length - self.end)
        place = slice(self.end - length, self.end)
        for own, other in zip(self.layers, filled.layers, strict=True):
            own.keys[len(self.lengths), :, place] = other.keys[row, :, :length]
            own.values[len(self.lengths), :, place] = other.values[row, :, :length]
        self.lengths.append(length)
        self.begin = min(self.begin, self.end - length)

    def leave(self, row: int, poisoned: bool = False) -> None:
        """Drops a row; the last one takes its place. What a `poisoned` row wrote (NaN) must not stay: a masked value
        still counts as 0 x NaN."""
        last = len(self.lengths) - 1
        for layer in self.layers:
            for stack in (layer.keys, layer.values):
                if poisoned:
                    stack[row].zero_()
                if row != last:
                    stack[row, :, self.begin : self.end] = stack[last, :, self.begin : self.end]
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        self.begin = self.end - max(self.lengths, default=0)
        if not self.lengths:
            self.begin = self.end = 0
            if self.layers and self.layers[0].keys.shape[2] > KEPT:
                self.layers = []

    def reserve_column(self) -> None:
        """Room for one more token of every row."""
        self._reserve(len(self.lengths), self.width + 1)

    def advance(self) -> None:
        """After a forward pass: every row has one token more."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def mask(self, device: torch.device) -> Tensor | None:
        """[rows, width + 1]: which columns a row's next token sees. None when that is all of them."""
        width = self.width
        if all(length == width for length in self.lengths):
            return None
        starts = torch.tensor([width - length for length in self.lengths], device=device)
        return torch.arange(width + 1, device=device) >= starts[:, None]

    def _reserve(self, rows: int, width: int) -> None:
        """Buffers for so many rows and columns, and `width` columns from `begin` on."""
        if not self.layers:
            return
        there, _, columns, _ = self.layers[0].keys.shape
        if rows > there or width > columns:
            self._grow(_power(max(rows, there)), _power(max(width, columns)))
        elif self.begin + width > columns:  # compacting pays when it makes as much room as it copies
            if self.begin >= self.width:
                self._move(-self.begin)
            else:
                self._grow(there, columns * 2)

    def _grow(self, rows: int, columns: int) -> None:
        used, width = len(self.lengths), self.width
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_zeros(rows, old.shape[1], columns, old.shape[3])
                new[:used, :, :width] = old[:used, :, self.begin : self.end]
                setattr(layer, name, new)
        self.begin, self.end = 0, width

    def _move(self, by: int) -> None:
        """All rows `by` columns to the right, or to the left."""
        used, to = len(self.lengths), slice(self.begin + by, self.end + by)
        if used:
            for layer in self.layers:
                for stack in (layer.keys, layer.values):
                    stack[:used, :, to] = stack[:used, :, self.begin : self.end].clone()
        self.begin, self.end = self.begin + by, self.end + by


class _Layer(CacheLayerMixin):
    """One layer's buffers, as a model's attention asks for them."""

    is_sliding = False  # a window is a matter of the mask here: all that a row has is kept

    def __init__(self, cache: RowCache, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._cache = cache
        self.keys = keys.new_zeros(1, keys.shape[1], COLUMNS, keys.shape[3])
        self.values = values.new_zeros(1, values.shape[1], COLUMNS, values.shape[3])
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to do."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes the column `end` of each row, and gives all columns up to it."""
        cache, rows = self._cache, len(key_states)
        self.keys[:rows, :, cache.end] = key_states[:, :, 0]
        self.values[:rows, :, cache.end] = value_states[:, :, 0]
        seen = slice(cache.begin, cache.end + 1)
        return self.keys[:rows, :, seen], self.values[:rows, :, seen]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._cache.width + query_length, 0

    def get_seq_length(self) -> int:
        return self._cache.width

    def get_max_length(self) -> int:
        return -1


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()
