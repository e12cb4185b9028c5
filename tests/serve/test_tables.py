"""Ids and positions for which a model has no row: refused, since looking them up would end the step of everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from ftlib.registry import registry
from ftlib.run.directory import Run
from serve.engine.classifier import Classifier, Label
from serve.engine.messages import Refusal
from serve.engine.model import room, table
from serve.engine.options import EngineOptions

from .conftest import finish, tiny_tokenizer

SIZES: dict[str, Any] = {"vocab_size": 320, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
TINY: dict[str, tuple[type[Any], Any, int | None]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, intermediate_size=8, max_position_embeddings=40), 40),
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=320, n_embd=8, n_layer=1, n_head=2, n_positions=40), 40),
    "opt": (OPTForCausalLM, OPTConfig(**SIZES, ffn_dim=8, word_embed_proj_dim=8, max_position_embeddings=40), 40),
    "bloom": (BloomForCausalLM, BloomConfig(vocab_size=320, hidden_size=8, n_layer=1, n_head=2), None),
    "roberta": (
        RobertaForSequenceClassification,
        RobertaConfig(**SIZES, intermediate_size=8, max_position_embeddings=40, num_labels=2),
        38,  # its first rows are for padding
    ),
}


@pytest.mark.parametrize(("model", "config", "positions"), TINY.values(), ids=TINY)
def test_a_model_has_room_for_its_positions(model: type[Any], config: Any, positions: int | None) -> None:
    import torch

    made = model(config).eval()
    assert room(made) == positions
    assert table(made) == 320
    with torch.no_grad():
        made(input_ids=torch.full((1, positions or 50), 5))
        if positions is not None and model is not LlamaForCausalLM:  # which counts on
            with pytest.raises((IndexError, RuntimeError)):
                made(input_ids=torch.full((1, positions + 1), 5))


def test_a_classifier_takes_what_its_tables_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    trial = (run := Run.create(tmp_path / "runs", "tiny", "", {})).trial("a")
    model, config, positions = TINY["roberta"]
    model(config).save_pretrained(trial.path / "model")
    tokenizer = tiny_tokenizer(None)
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(trial.path / "model")
    finish(trial, "model", trial.path / "model")
    classifier = Classifier(registry.register(run, trial, "sorter"), EngineOptions())
    assert positions is not None
    good, long, new = classifier._answers([["x" * positions], ["x" * (positions + 1)], ["a <|new|>"]])
    assert isinstance(good, list)
    assert isinstance(good[0], Label)
    assert isinstance(long, Refusal)
    assert "at most 38" in long.message
    assert isinstance(new, Refusal)
    assert "token 320 is none of the 320" in new.message
