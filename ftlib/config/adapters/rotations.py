"""The adapters that rotate weights: OFT and BOFT."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftlib.config.adapters.base import Adapter, Modules


class Oft(Adapter):
    """Orthogonal rotations of the weights in blocks (Qiu et al. 2023, arXiv:2306.07280). Give `r` (the number of
    blocks) or `oft_block_size`, the other being 0."""

    type: Literal["oft"]
    """OFT (arXiv:2306.07280), orthogonal fine-tuning: each block of a layer's weights is rotated."""
    r: int = Field(default=0, ge=0)
    """The number of blocks of a layer. With 0 it follows from oft_block_size. One of the two is 0."""
    oft_block_size: int = Field(default=32, ge=0)
    """The width of a block. With 0 it follows from r. One of the two is 0."""
    module_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of blocks that are not rotated in a training step."""
    coft: bool = False
    """Keep each rotation near to none, within eps (constrained OFT)."""
    eps: float = Field(default=6e-5, gt=0)
    """With coft: how far a rotation may go."""
    block_share: bool = False
    """All blocks of a layer share one rotation."""
    use_cayley_neumann: bool = True
    """Compute the rotations by a series (Cayley-Neumann), which is faster and less exact."""
    num_cayley_neumann_terms: int = Field(default=5, ge=1)
    """The number of terms of that series. More terms are more exact."""
    target_modules: Modules = "all-linear"
    """The linear layers that get an adapter: all-linear (all but the output layer), a list of the last parts of their
    names, or a regular expression over whole names."""

    @model_validator(mode="after")
    def _one_size(self) -> Oft:
        if (self.r == 0) == (self.oft_block_size == 0):
            raise ValueError(
                f"one of r ({self.r}) and oft_block_size ({self.oft_block_size}) follows from the other: set it to 0"
            )
        return self


class Boft(Adapter):
    """Orthogonal rotations factored as butterflies (Liu et al. 2023, arXiv:2311.06243). Give `boft_block_size` or
    `boft_block_num`, the other being 0."""

    type: Literal["boft"]
    """BOFT (arXiv:2311.06243): orthogonal fine-tuning whose rotation is a product of sparse ones (butterflies)."""
    boft_block_size: int = Field(default=4, ge=0)
    """The width of a block. With 0 it follows from boft_block_num. One of the two is 0."""
    boft_block_num: int = Field(default=0, ge=0)
    """The number of blocks of a layer. With 0 it follows from boft_block_size. One of the two is 0."""
    boft_n_butterfly_factor: int = Field(default=1, ge=1)
    """The number of sparse rotations that are multiplied. 1 is plain OFT."""
    boft_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of blocks that are not rotated in a training step."""
    target_modules: Modules = "all-linear"
    """The linear layers that get an adapter: all-linear (all but the output layer), a list of the last parts of their
    names, or a regular expression over whole names."""

    @model_validator(mode="after")
    def _one_size(self) -> Boft:
        if (self.boft_block_size == 0) == (self.boft_block_num == 0):
            raise ValueError(
                f"one of boft_block_size ({self.boft_block_size}) and boft_block_num ({self.boft_block_num}) follows "
                "from the other: set it to 0"
            )
        return self
