"""The tensors that a slot of a bank trains, and where each lies in the slot's row."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

ALIGN = 16  # floats: a part begins where vector instructions do
MAGNITUDE = "lora_magnitude_vector"  # PEFT's name of what DoRA trains beside A and B


@dataclass
class Part:
    """What is trained of one tensor: where it lies in a slot's row. `shape` is a slot's, a matrix's as (in, out).

    A of LoRA lies with its rank outside, as in PEFT's files: with it inside, x A and the gradient of A take MKL two to
    four times as long at rank 8 (docs/log.md, 2026-11-28).
    """

    name: str
    start: int
    shape: tuple[int, ...]
    rank_dim: int | None = None  # the dimension that is cut to a slot's rank; None for a head, which has none
    layer: int | None = None  # of the bank's

    @property
    def kind(self) -> str:
        """A or B; weight or bias of a head; lora_magnitude_vector of DoRA."""
        return {1: "A", 0: "B", None: self.name.rpartition(".")[2]}[self.rank_dim]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return math.ceil((self.start + self.size) / ALIGN) * ALIGN

    def of(self, flat: Tensor) -> Tensor:
        """[slots, *shape], a view."""
        strides = (1, self.shape[0]) if self.kind == "A" else (self.shape[-1], 1)[-len(self.shape) :]
        return flat.as_strided((len(flat), *self.shape), (flat.stride(0), *strides), flat.storage_offset() + self.start)
