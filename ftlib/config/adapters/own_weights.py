"""A part of the model's own weights is trained: its biases (BitFit), or its last layers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftlib.config.adapters.base import Adapter


class _Part(Adapter):
    """A part of the model's own weights is trained, so that a trial leaves a whole model."""

    @property
    def saves(self) -> Literal["adapter", "model"]:
        return "model"

    @property
    def mergeable(self) -> bool:
        return False


class BitFit(_Part):
    """The model's biases alone (Ben Zaken et al. 2021, arXiv:2106.10199), and a classifier's head."""

    type: Literal["bitfit"]
    """BitFit (arXiv:2106.10199): the biases of the model are trained, and the head of a classifier. The result is a
    whole model."""


class Layers(_Part):
    """The last `num_layers` transformer layers, the rest frozen (Lee et al. 2019, arXiv:1911.03090). `train_head` adds
    the output layer, which in some models is the input embedding too; a classifier's head is always trained."""

    type: Literal["layers"]
    """The last layers of the model are trained, and the rest is frozen (arXiv:1911.03090). The result is a whole
    model."""
    num_layers: int = Field(default=2, ge=1)
    """The number of layers that are trained, counted from the end."""
    train_head: bool = False
    """Train the output layer too. In some models it is also the input embedding. The head of a classifier is always
    trained."""
