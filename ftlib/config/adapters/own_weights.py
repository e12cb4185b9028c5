"""A part of the model's own weights is trained: its biases (BitFit), or its last layers."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

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
    parameters: list[str] = Field(default_factory=list)
    """Train these weights, and not the last layers: regular expressions over the names of weights, from their
    beginning. [model.layers.3[01], lm_head] are two layers and the output layer."""
    train_head: bool = False
    """Train the output layer too. In some models it is also the input embedding. The head of a classifier is always
    trained."""

    @field_validator("parameters")
    @classmethod
    def _are_expressions(cls, parameters: list[str]) -> list[str]:
        for pattern in parameters:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
        return parameters

    @model_validator(mode="after")
    def _layers_or_parameters(self) -> Layers:
        if self.parameters and self.model_fields_set & {"num_layers", "train_head"}:
            raise ValueError("parameters names all that is trained: drop num_layers and train_head")
        return self
