"""The frozen base: a pack's forward is the model's own, for each architecture that it takes; others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftlib.data import load_prepared
from ftlib.pack.frozen_base import CannotPack, FrozenBase
from ftlib.pack.token_layout import Block
from tests.training.test_trial import setting

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
TAKEN: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 8, "head_dim": 8},
    "phi3": {"pad_token_id": 0},
    "gemma": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 70, "attn_pdrop": 0.0},
}
REFUSED: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 8, "attn_logit_softcapping": 50.0},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.25},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}


def made(kind: str, keys: dict[str, Any], tree: dict[str, Any], base: Path, folder: Path) -> Any:
    from transformers import AutoConfig

    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **({} if kind == "gpt2" else SHAPE), **keys)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / kind)
    tokenizer.save_pretrained(folder / kind)
    tree["model"]["name_or_path"] = str(folder / kind)
    return setting(tree, folder / "runs")


@pytest.mark.parametrize("kind", TAKEN)
@torch.no_grad()
def test_the_forward_is_the_models_own(kind: str, tree: dict[str, Any], base: Path, tmp_path: Path) -> None:
    done = made(kind, TAKEN[kind], tree, base, tmp_path)
    data = load_prepared(Path(done.data))
    ours = FrozenBase(done.experiment(), data, 2, 4)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / kind).eval()
    from ftlib.methods.pack_losses import objective

    rows = [0, 3, 5, 7]
    tokens = objective(done.experiment(), data, ours).tokens("train", rows)
    with ours.computing([Block.of(tokens), Block.of(tokens[:2])], None) as outputs:
        for scored, sequences in zip(outputs, (tokens, tokens[:2]), strict=True):
            expected = [
                theirs(input_ids=torch.from_numpy(sequence.ids)[None]).logits[0, sequence.picked]
                for sequence in sequences
            ]
            assert torch.allclose(scored.logits, torch.cat(expected), atol=2e-5)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_a_pack_would_compute_otherwise_is_refused(
    kind: str, tree: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    done = made(kind, REFUSED[kind], tree, base, tmp_path)
    with pytest.raises(CannotPack, match=r"(ForCausalLM|LMHeadModel) (does not take|makes its logits|drops weights)"):
        FrozenBase(done.experiment(), load_prepared(Path(done.data)), 1, 4)
