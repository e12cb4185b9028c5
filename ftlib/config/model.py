"""`model:` which base model, and how its weights are read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ftlib.config.section import Section


class SpecialTokens(Section):
    """Tokens in the place of the tokenizer's own, and new ones. A token that the vocabulary lacks is added to it; the
    model then gets a row of embeddings for it, which only a full fine-tuning (`adapter: null`) trains."""

    bos_token: str | None = Field(default=None, min_length=1)
    """The token that begins a text. null keeps the tokenizer's own."""
    eos_token: str | None = Field(default=None, min_length=1)
    """The token that ends an answer. Generation stops there. null keeps the tokenizer's own."""
    pad_token: str | None = Field(default=None, min_length=1)
    """The token that fills short rows of a batch. null keeps the tokenizer's own, or takes eos_token where it has
    none."""
    unk_token: str | None = Field(default=None, min_length=1)
    """The token for text that the vocabulary lacks. null keeps the tokenizer's own."""
    additional_special_tokens: list[str] = Field(default_factory=list)
    """More special tokens. They are left out where a model's answer is printed."""
    tokens: list[str] = Field(default_factory=list)
    """Ordinary words that become one token each."""

    @property
    def named(self) -> dict[str, str]:
        """The tokens that have a part to play, by transformers' name for it."""
        roles = self.model_dump(include={"bos_token", "eos_token", "pad_token", "unk_token"})
        return {role: token for role, token in roles.items() if token is not None}


class ModelSection(Section):
    """The names are those of `from_pretrained`; `init: random` starts from the config alone (pretraining)."""

    name_or_path: str = Field(min_length=1)
    """The base model: a folder, a name on the Hub, registry:NAME (a promoted version), a GGUF file, or a URL (s3:// or
    gs://)."""
    gguf_file: str | None = None
    """The name of the GGUF file inside the folder, or inside the repository on the Hub. A folder that holds nothing but
    one GGUF file needs no name."""
    revision: str | None = None
    """The branch, tag or commit of the model on the Hub. null is its main branch."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of the weights in memory. auto is the type in which they are saved."""
    quantization: Literal["nf4", "int8"] | None = None
    """Fewer bits for the frozen base (bitsandbytes): nf4 has 4 bits, as in QLoRA, and int8 has 8. Only an adapter is
    trained on such a base. null quantizes nothing."""
    quantize_moe_experts: bool = False
    """With quantization: also the experts of a mixture, which transformers keeps as one weight a layer. false leaves
    these as they are, and they are most of such a model. A model without such weights refuses it."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """The attention kernel, by transformers' names. null is transformers' own choice."""
    init: Literal["pretrained", "random"] = "pretrained"
    """pretrained reads the saved weights. random draws new weights from the config, for a first pretraining."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keys of the model's config.json that get other values: {attention_dropout: 0.1}."""
    tokenizer: str | None = None
    """The folder or the name on the Hub of another tokenizer. null is the tokenizer of the model."""
    special_tokens: SpecialTokens = Field(default_factory=SpecialTokens)
    """Tokens that replace the tokenizer's own, and new tokens. A token that the vocabulary lacks needs full
    fine-tuning, because its embedding is trained."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the model. It can do anything on your machine, so read it before you say
    true."""

    @model_validator(mode="after")
    def _experts_are_a_part_of_it(self) -> ModelSection:
        if self.quantize_moe_experts and self.quantization is None:
            raise ValueError("quantize_moe_experts says how much quantization covers, and that is null: set it to nf4")
        return self
