"""`model:` which base model, and how its weights are read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ftlib.config.section import Section


class SpecialTokens(Section):
    """Tokens in the place of the tokenizer's own, and new ones. A token that the vocabulary lacks is added to it; the
    model then gets a row of embeddings for it, which only a full fine-tuning (`adapter: null`) trains."""

    bos_token: str | None = Field(default=None, min_length=1)
    eos_token: str | None = Field(default=None, min_length=1)  # ends an answer: generation stops there
    pad_token: str | None = Field(default=None, min_length=1)
    unk_token: str | None = Field(default=None, min_length=1)
    additional_special_tokens: list[str] = Field(default_factory=list)  # left out where text is printed
    tokens: list[str] = Field(default_factory=list)  # words that become one token each

    @property
    def named(self) -> dict[str, str]:
        """The tokens that have a part to play, by transformers' name for it."""
        roles = self.model_dump(include={"bos_token", "eos_token", "pad_token", "unk_token"})
        return {role: token for role, token in roles.items() if token is not None}


class ModelSection(Section):
    """The names are those of `from_pretrained`; `init: random` starts from the config alone (pretraining)."""

    name_or_path: str = Field(min_length=1)
    gguf_file: str | None = None  # its file in the folder, or on the Hub, where there is more than one
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["nf4", "int8"] | None = None  # of the frozen base; an adapter is trained on it
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    config: dict[str, Any] = Field(default_factory=dict)  # overrides of the model's own config.json
    tokenizer: str | None = None  # where it is not the model's own
    special_tokens: SpecialTokens = Field(default_factory=SpecialTokens)
    trust_remote_code: bool = False
