"""Shifted sparse attention: full where a group covers the row, by hand where it does not, and only in training."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    Qwen3Config,
)

from ftlib.config import Experiment
from ftlib.data import load_prepared
from ftlib.errors import ConfigError
from ftlib.models.shifted_attention import shift_attention
from tests.training.test_trial import losses, setting, train

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "llama, 3 heads": LlamaConfig(**SMALL | {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 24}),
    "qwen3, sliding": Qwen3Config(**SMALL, head_dim=8, use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0),
}
IDS = torch.arange(1, 27).reshape(2, 13)
RAGGED = torch.tensor([[0] * 5 + [1] * 8, [1] * 13])  # the first row begins later


def pair(config: Any, group: int) -> tuple[Any, Any]:
    """(a model as it is, the same one with groups), both in training."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(AutoModelForCausalLM.from_config(copy.deepcopy(config)).train())
    shift_attention(models[1], group)
    return models[0], models[1]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mask", [None, RAGGED], ids=["whole", "padded"])
def test_a_group_that_covers_the_row_is_full_attention(name: str, mask: Tensor | None) -> None:
    """Its path is taken where one token more makes the row longer than its group."""
    plain, shifted = pair(CONFIGS[name], 14)
    assert torch.equal(shifted(IDS, attention_mask=mask).logits, plain(IDS, attention_mask=mask).logits)
    shorter = pair(CONFIGS[name], 12)[1](IDS, attention_mask=mask).logits
    assert not torch.allclose(shorter, plain(IDS, attention_mask=mask).logits, atol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("group", [4, 6])
@pytest.mark.parametrize("mask", [None, RAGGED], ids=["whole", "padded"])
def test_it_is_full_attention_with_a_mask_for_each_half_of_the_heads(
    name: str, group: int, mask: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: a head of the second half has its groups half a group later."""
    from ftlib.models import shifted_attention as ours

    _, shifted = pair(CONFIGS[name], group)
    found = shifted(IDS, attention_mask=mask)
    found.logits.sum().backward()
    gradients = [part.grad.clone() for part in shifted.parameters() if part.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)

    heads: list[Tensor] = []

    def by_hand(
        query: Tensor, key: Tensor, value: Tensor, allowed: Any, size: int, front: int, *options: Any
    ) -> Tensor:
        heads.append(query)
        shift = size // 2 if len(heads) % 2 == 0 else 0  # the halves come one after the other
        places = (torch.arange(query.shape[2]) + shift) // size
        causal = torch.ones(len(places), len(places), dtype=torch.bool).tril()[None, None]
        seen = (causal if allowed is None else allowed) & (places[:, None] == places[None])
        scores = query @ key.transpose(2, 3) * (options[1] or query.shape[-1] ** -0.5)
        seen = seen | torch.eye(len(places), dtype=torch.bool)
        return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value

    monkeypatch.setattr(ours, "_grouped", by_hand)
    expected = shifted(IDS, attention_mask=mask)
    counted = torch.ones_like(IDS).bool() if mask is None else mask.bool()
    assert [part.shape[1] for part in heads] == [2, 1 if "3 heads" in name else 2] * 2  # of each of 2 layers
    assert torch.allclose(found.logits[counted], expected.logits[counted], atol=1e-5)


def test_evaluation_and_answers_have_full_attention() -> None:
    plain, shifted = pair(CONFIGS["llama"], 4)
    assert torch.equal(shifted.eval()(IDS).logits, plain.eval()(IDS).logits)
    options = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(shifted.generate(IDS, **options), plain.generate(IDS, **options))


def loss_by_hand(base: Path, rows: Any, group: int | None) -> float:
    """The mean loss of all labelled tokens of some rows, in training."""
    model = AutoModelForCausalLM.from_pretrained(base).train()
    if group is not None:
        shift_attention(model, group)
    columns = [[torch.tensor(row[name]) for row in rows] for name in ("input_ids", "labels")]
    ids, labels = (pad_sequence(part, True, value) for part, value in zip(columns, (0, -100), strict=True))
    mask = pad_sequence([torch.ones_like(row) for row in columns[0]], True)
    with torch.no_grad():
        return float(model(input_ids=ids, attention_mask=mask, labels=labels).loss)


def test_a_trial_trains_with_it_and_is_evaluated_without(tree: dict[str, Any], base: Path, tmp_path: Path) -> None:
    """One step over all rows, before which the adapter adds nothing."""
    tree["train"] |= {"max_steps": 1, "logging_steps": 1, "learning_rate": 1e-9, "per_device_train_batch_size": 64}
    tree["train"]["shifted_attention"] = 8
    tree["scale"] = {"engine": "trainer"}
    done = setting(tree, tmp_path)
    evaluated, trained = train(done)[-1]["eval_loss"], losses(done)[0][1]
    data = load_prepared(Path(done.data))
    assert len(data.train) == 64
    assert evaluated == pytest.approx(loss_by_hand(base, data.eval, None), abs=1e-5)
    assert trained == pytest.approx(loss_by_hand(base, data.train, 8), abs=1e-5)
    assert trained != pytest.approx(loss_by_hand(base, data.train, None), abs=1e-4)
    assert "ftlib_shifted" not in "".join(file.read_text() for file in tmp_path.rglob("*config.json"))


def test_what_it_cannot_do_is_refused(tree: dict[str, Any]) -> None:
    encoder = BertForSequenceClassification(
        BertConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    )
    with pytest.raises(ConfigError, match="BertForSequenceClassification is no decoder"):
        shift_attention(encoder, 4)
    for keys, reason in (
        ({"train": {"shifted_attention": 5}}, "train.shifted_attention"),
        ({"method": {"type": "dpo"}}, "this method compares what is trained"),
        ({"adapter": {"type": "prefix"}}, "virtual tokens stand before the first group"),
        ({"model": {**tree["model"], "attn_implementation": "eager"}}, "it is an attention of its own"),
    ):
        with pytest.raises(ConfigError, match=re.escape(reason)):
            Experiment.parse({**tree, "train": {"shifted_attention": 4}, **keys})
