"""What the frozen base says of the rows that trials compare with it: computed once, and only of rows that are met."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftlib.files.computed_once import shared_out
from ftlib.methods.pack_losses import Tokens

PARTS = 16  # at most, of the rows that are asked for at once: hosts share them
FILE = "reference.safetensors"


@dataclass
class References:
    """The log-probabilities that the base gives to the sequences of rows. They are kept in FTLIB_HOME/cache.

    `depends` is what they depend on besides the rows, `sums` computes those of some sequences, `size` is how many rows
    are computed together.
    """

    depends: dict[str, Any]
    sums: Callable[[Sequence[Tokens]], Tensor]
    size: int
    _known: dict[tuple[str, str], dict[int, Tensor]] = field(default_factory=dict, init=False)

    def of(
        self,
        split: str,
        kind: str,
        tokens_of: Callable[[Sequence[int]], list[Tokens]],
        rows: Sequence[int],
        soon: Sequence[int],
    ) -> Tensor:
        """[rows, sequences of a row]: the log-probability of each. `soon` are the rows that will be asked for too.

        `tokens_of` gives some rows' sequences, all first ones before all second ones.
        """
        known = self._known.setdefault((split, kind), {})
        if any(row not in known for row in rows):
            missing = sorted({*rows, *soon} - known.keys())
            known |= zip(missing, self._computed(split, kind, tokens_of, missing), strict=True)
        return torch.stack([known[row] for row in rows])

    def _computed(
        self, split: str, kind: str, tokens_of: Callable[[Sequence[int]], list[Tokens]], rows: list[int]
    ) -> Tensor:
        size = max(math.ceil(len(rows) / PARTS), math.ceil(self.size / 2))
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]

        def build(number: int, folder: Path) -> None:
            some = [parts[number][start : start + self.size] for start in range(0, len(parts[number]), self.size)]
            found = [self.sums(tokens_of(batch)).view(-1, len(batch)).t() for batch in some]
            save_file({"log_probs": torch.cat(found).contiguous().cpu()}, folder / FILE)

        keys = [{**self.depends, "split": split, "kind": kind, "rows": part} for part in parts]
        return torch.cat([load_file(folder / FILE)["log_probs"] for folder in shared_out("reference", keys, build)])
