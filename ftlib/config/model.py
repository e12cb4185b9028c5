"""`model:` which base model, and how its weights are read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ftlib.config.section import Section


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
    trust_remote_code: bool = False
