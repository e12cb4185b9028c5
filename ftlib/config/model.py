"""`model:` which base model, and how its weights are read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ftlib.config.section import Section


class SpecialTokens(Section):
    """Tokens in the place of the tokenizer's own, and new ones. A token that the vocabulary lacks is added to it; the
    model then gets a row of embeddings for it, which only a full fine-tuning (`adapter: null`) trains."""

    bos_token: str | None = Field(default=None, min_length=1)
    """The token that begins a text."""
    eos_token: str | None = Field(default=None, min_length=1)
    """The token that ends an answer: generation stops there."""
    pad_token: str | None = Field(default=None, min_length=1)
    """The token that fills up short rows."""
    unk_token: str | None = Field(default=None, min_length=1)
    """The token for what the vocabulary lacks."""
    additional_special_tokens: list[str] = Field(default_factory=list)
    """More tokens, which are left out where text is printed."""
    tokens: list[str] = Field(default_factory=list)
    """Words that become one token each."""

    @property
    def named(self) -> dict[str, str]:
        """The tokens that have a part to play, by transformers' name for it."""
        roles = self.model_dump(include={"bos_token", "eos_token", "pad_token", "unk_token"})
        return {role: token for role, token in roles.items() if token is not None}


class ModelSection(Section):
    """The names are those of `from_pretrained`; `init: random` starts from the config alone (pretraining)."""

    name_or_path: str = Field(min_length=1)
    """A folder, a name on the Hub, registry:NAME, or a GGUF file."""
    gguf_file: str | None = None
    """The GGUF file in the folder, or on the Hub, where there is more than one."""
    revision: str | None = None
    """A branch, tag or commit on the Hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of the weights in memory; auto: as they were saved."""
    quantization: Literal["nf4", "int8"] | None = None
    """Bits of the frozen base: nf4 (4, as in QLoRA) or int8. An adapter is trained on it."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """How attention is computed; null: transformers' choice."""
    init: Literal["pretrained", "random"] = "pretrained"
    """random draws the weights anew: the first pretraining of a model."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keys of the model's own config.json, set to other values."""
    tokenizer: str | None = None
    """A folder, or a name on the Hub, where the tokenizer is not the model's own."""
    special_tokens: SpecialTokens = Field(default_factory=SpecialTokens)
    """Tokens in the place of the tokenizer's own, and new ones."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the model."""
