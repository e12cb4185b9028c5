"""What llama.cpp asks of each family of models: its name there, its numbers, and how its tensors lie.

Facts of llama.cpp's converter (conversion/llama.py, qwen.py, gemma.py): it turns the rotary halves of Llama's queries
and keys into pairs, and adds the 1 of Gemma's norms to their weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from torch import Tensor

from ftlib.errors import InputError

ALWAYS_TIED = ("gemma", "gemma2")  # llama.cpp reads no output matrix of theirs


@dataclass(frozen=True)
class Family:
    """`pairs`: whether the rows of queries and keys are put in pairs. `ones`: whether norms have a 1 to add."""

    architecture: gguf.MODEL_ARCH
    pairs: bool = False
    ones: bool = False


FAMILIES = {
    "llama": Family(gguf.MODEL_ARCH.LLAMA, pairs=True),
    "mistral": Family(gguf.MODEL_ARCH.LLAMA, pairs=True),
    "qwen2": Family(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Family(gguf.MODEL_ARCH.QWEN3),
    "gemma": Family(gguf.MODEL_ARCH.GEMMA, ones=True),
    "gemma2": Family(gguf.MODEL_ARCH.GEMMA2, ones=True),
    "gemma3_text": Family(gguf.MODEL_ARCH.GEMMA3, ones=True),
}


class Layout:
    """A model's config, and where each of its tensors goes. Raises InputError for a family or a rope that is not
    known."""

    def __init__(self, config: Any, owner: str) -> None:
        self.config, self.owner = config.get_text_config(), owner
        kind = self.config.model_type
        if kind not in FAMILIES:
            raise InputError(
                f"{owner} is a model of type {kind}, and ftlib writes GGUF files of {', '.join(FAMILIES)}: export it "
                "--to merged, and use llama.cpp's own convert_hf_to_gguf.py."
            )
        self.family = FAMILIES[kind]
        self.names = gguf.get_tensor_name_map(self.family.architecture, self.config.num_hidden_layers)
        self.head_size = (
            getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        )
        told = self.config.rope_parameters or {}
        self.rope = told.get("full_attention", told)
        self.local_rope = told.get("sliding_attention", {})
        if self.rope.get("rope_type", "default") not in ("default", "linear", "llama3", "yarn"):
            raise InputError(f"{owner}: ftlib writes no rope of type {self.rope['rope_type']} into a GGUF file.")
        if kind in ALWAYS_TIED and not self.config.tie_word_embeddings:
            raise InputError(f"{owner}: llama.cpp reads no output matrix of {kind}: its embeddings must be tied.")

    @property
    def architecture(self) -> str:
        return str(gguf.MODEL_ARCH_NAMES[self.family.architecture])

    def name(self, theirs: str) -> str:
        """What llama.cpp calls a tensor of transformers. Raises InputError for one that it has no place for."""
        found = self.names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise InputError(f"{self.owner}: llama.cpp has no place for its tensor {theirs}.")
        return str(found)

    def lay(self, theirs: str, tensor: Tensor) -> Tensor:
        """A tensor as llama.cpp has it, of the same shape. Rows of B of a LoRA lie as those of its layer."""
        if self.family.ones and theirs.endswith("norm.weight"):
            return tensor + 1
        if self.family.pairs and ".q_proj." in theirs:
            return paired(tensor, self.config.num_attention_heads)
        if self.family.pairs and ".k_proj." in theirs:
            return paired(tensor, self.config.num_key_value_heads)
        return tensor

    def extra(self) -> Iterator[tuple[str, Tensor]]:
        """Tensors that transformers computes of the config: the factors of Llama 3's rope."""
        if self.rope.get("rope_type") == "llama3":
            yield "rope_freqs.weight", llama3_factors(self.rope, self.head_size)

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Adds the numbers of the config to a file."""
        config, kind = self.config, self.config.model_type
        window = getattr(config, "sliding_window", None)
        slides = window is not None and getattr(config, "use_sliding_window", True)
        if slides and kind.startswith("qwen"):
            raise InputError(f"{self.owner}: llama.cpp reads no sliding window of {kind} (use_sliding_window).")
        longest = config.max_position_embeddings
        # llama.cpp has no window for Mistral's layers: up to its width the two are the same.
        writer.add_context_length(min(longest, window) if slides and kind == "mistral" else longest)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_key_length(self.head_size)
        writer.add_value_length(self.head_size)
        writer.add_vocab_size(config.vocab_size)
        if self.family.pairs:
            writer.add_rope_dimension_count(self.head_size)
        if slides and self.family.ones:
            writer.add_sliding_window(window)
        for value, add in (
            (getattr(config, "attn_logit_softcapping", None), writer.add_attn_logit_softcapping),
            (getattr(config, "final_logit_softcapping", None), writer.add_final_logit_softcapping),
        ):
            if value is not None:
                add(value)
        self._write_rope(writer)

    def _write_rope(self, writer: gguf.GGUFWriter) -> None:
        rope = self.rope
        writer.add_rope_freq_base(rope.get("rope_theta", 10_000.0))
        if "rope_theta" in self.local_rope:
            writer.add_rope_freq_base_swa(self.local_rope["rope_theta"])
        kind = rope.get("rope_type", "default")
        if kind in ("linear", "yarn"):
            writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
            writer.add_rope_scaling_factor(rope["factor"])
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def paired(rows: Tensor, heads: int) -> Tensor:
    """Rows [heads * 2 * half, ...] with the two halves of each head's rotation next to each other."""
    return rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def llama3_factors(rope: dict[str, Any], size: int) -> Tensor:
    """By what llama.cpp divides each frequency of a head of this size, [size / 2] (Llama 3.1's rope scaling)."""
    frequencies = 1.0 / (rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    length, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = length * frequencies / (2 * math.pi)  # of each frequency within the original context
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return 1.0 / ((1 - smooth) / factor + smooth)
