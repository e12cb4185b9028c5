"""Each family that ftlib writes, with random weights, in llama.cpp: the logits and the tokens of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from ftlib.config import ModelSection
from ftlib.export.gguf_model import convert
from ftlib.export.llama_cpp_program import LlamaCpp
from ftlib.export.source import HARD_TEXTS, tokens_of
from ftlib.models.base import load_tokenizer
from ftlib.registry.agreement import apart, logits_of

pytestmark = pytest.mark.usefixtures("needs_llama_cpp")
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 99, "initializer_range": 0.3}  # fmt: skip
ROPE = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": ROPE, "tie_word_embeddings": False},
    "mistral": {"sliding_window": None},
    "qwen2": {"hidden_size": 128, "tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": True},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 32, "sliding_window": 64},
    "gemma3_text": {"query_pre_attn_scalar": 32, "sliding_window": 64},
}
IDS = [[*range(5, 60)], [*range(90, 40, -1)]]


@pytest.mark.parametrize("kind", FAMILIES)
def test_llama_cpp_computes_what_transformers_does(kind: str, base: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(ModelSection(name_or_path=str(base)))
    torch.manual_seed(0)
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = CONFIG_MAPPING[kind](vocab_size=len(tokenizer) + 8, **{**SHAPE, **special, **FAMILIES[kind]})
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, part in model.named_parameters():
        if name.endswith(("norm.weight", ".bias")):
            part.data.normal_(0 if kind.startswith("gemma") or name.endswith("bias") else 1, 0.2)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "it.gguf", "f32", "it")
    program = LlamaCpp(tmp_path / "it.gguf", tokenizer)
    assert apart(program.logits(IDS), logits_of(model, IDS)) < 6e-3
    assert program.reading(HARD_TEXTS).tied is config.tie_word_embeddings


def sentencepiece(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer as those of Llama 2 and Gemma are read from SentencePiece: bytes of what it does not know, and a
    merge for each way to put a piece together."""
    words = ["▁the", "▁to", "he", "th", "▁t", "In", "▁don", "▁no", "on", "it", "▁it", "at", "12", "▁re", "▁return"]
    letters = sorted({letter for word in words for letter in word} | set("abcdefghijklmnopqrstuvwxyz0123456789▁.,'!"))
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    inner = sorted({word[:size] for word in words for size in range(2, len(word))} - set(pieces))
    ranked = [*inner, *words]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, *inner, *letters]))}
    merges = [(piece[:cut], piece[cut:]) for piece in ranked for cut in range(1, len(piece))]
    merges = [pair for pair in merges if pair[0] in vocabulary and pair[1] in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def test_a_tokenizer_of_sentencepiece_cuts_alike(tmp_path: Path) -> None:
    tokenizer = sentencepiece(tmp_path)
    config = CONFIG_MAPPING["llama"](vocab_size=len(tokenizer), **SHAPE, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "it.gguf", "f16", "it")
    texts = ["Into the 1212 it", "don't return", *HARD_TEXTS]
    told = LlamaCpp(tmp_path / "it.gguf", tokenizer).reading(texts)
    assert told.tokens == tokens_of(AutoTokenizer.from_pretrained(tmp_path / "model"), texts)
    assert told.ends is not None
    assert 2 in told.ends
    assert json.loads(tokenizer.backend_tokenizer.to_str())["model"]["byte_fallback"] is True
