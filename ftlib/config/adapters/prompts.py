"""The adapters that are vectors before the input: prefixes, prompts and P-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftlib.config.adapters.base import Adapter


class _Prompt(Adapter):
    """Vectors that stand before the input. There is no matrix of the base that they could be merged into."""

    num_virtual_tokens: int = Field(default=20, ge=1)
    """The number of learned positions that stand before the input."""

    @property
    def mergeable(self) -> bool:
        return False


class Prefix(_Prompt):
    """Learned keys and values before every layer's own (Li and Liang 2021, arXiv:2101.00190). They begin as the base's
    own for random words. `prefix_projection` learns them through an MLP of `encoder_hidden_size` (null: the model's
    width), and they begin at zero."""

    type: Literal["prefix"]
    """Prefix tuning (arXiv:2101.00190): learned keys and values before those of the input, in every layer."""
    prefix_projection: bool = False
    """Compute the keys and values by a small network, which is trained."""
    encoder_hidden_size: int | None = Field(default=None, ge=1)
    """With prefix_projection: the width of that network. null is the width of the model."""


class Prompt(_Prompt):
    """Learned embeddings before the input's (Lester et al. 2021, arXiv:2104.08691), drawn at random, from the
    vocabulary's, or taken from a text's."""

    type: Literal["prompt"]
    """Prompt tuning (arXiv:2104.08691): learned embeddings before those of the input."""
    prompt_tuning_init: Literal["RANDOM", "SAMPLE_VOCAB", "TEXT"] = "RANDOM"
    """Where the embeddings begin: at random numbers (RANDOM), at random words of the vocabulary (SAMPLE_VOCAB), or at a
    text (TEXT)."""
    prompt_tuning_init_text: str | None = None
    """The text at which the embeddings begin. It is set with prompt_tuning_init: TEXT."""

    @model_validator(mode="after")
    def _text_for_text(self) -> Prompt:
        if (self.prompt_tuning_init == "TEXT") != bool(self.prompt_tuning_init_text):
            raise ValueError("prompt_tuning_init: TEXT and prompt_tuning_init_text (the text) go together")
        return self


class PTuning(_Prompt):
    """Learned embeddings before the input's that a small encoder computes (Liu et al. 2021, arXiv:2103.10385)."""

    type: Literal["p_tuning"]
    """P-tuning (arXiv:2103.10385): learned embeddings before those of the input, computed by a small network."""
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    """The kind of network that computes the embeddings."""
    encoder_hidden_size: int | None = Field(default=None, ge=1)
    """The width of the network. null is the width of the model."""
    encoder_num_layers: int = Field(default=2, ge=1)
    """The number of layers of the network. Only an LSTM uses it."""
    encoder_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the network's activations that is set to 0 in training. Only an LSTM uses it."""
