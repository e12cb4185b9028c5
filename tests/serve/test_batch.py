"""Rows of many adapters, lengths and ends in one batch: each says what transformers and PEFT say without a server."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen3Config,
)

from ftlib.registry.version import Version
from serve.engine.batch import CHUNK, Batch
from serve.engine.model import Loaded
from serve.engine.sampling import Sampling
from serve.engine.sequence import Sequence
from serve.engine.slots import Adapter, AdapterCache, Slots

from .conftest import CONTEXT

VOCABULARY = 320
TINY = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "initializer_range": 0.2}
SHAPE = {**TINY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
GROUPED = {**SHAPE, "num_key_value_heads": 2}


def sequence(prompt: list[int], limit: int = 8, adapter: Adapter | None = None, **options: Any) -> Sequence:
    sampling = options.pop("sampling", None) or Sampling(temperature=0)
    return Sequence(
        prompt, limit, options.pop("ends", frozenset()), sampling, lambda ids: str(ids), adapter=adapter, **options
    )


def tokens(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(2, VOCABULARY) for _ in range(count)]


def run(batch: Batch, waiting: list[Sequence], rows: int, slots: Slots | None = None, seed: int = 0) -> None:
    """All of them, joining at random moments, at most `rows` at once."""
    draw, waiting = random.Random(seed), list(waiting)
    while waiting or len(batch):
        group: list[Sequence] = []
        while waiting and len(batch) + len(group) < rows and draw.random() < 0.6:
            if slots is not None and waiting[0].adapter is not None and not slots.hold(waiting[0].adapter):
                break
            group.append(waiting.pop(0))
        batch.admit(group)
        batch.step()


def greedy(model: Any, prompt: list[int], limit: int, **options: Any) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit, pad_token_id=1, **options
    )
    return out[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def versions(adapters: Callable[[int], list[Version]]) -> list[Version]:
    return adapters(6)


def test_every_adapter_in_any_company_is_what_peft_generates(versions: list[Version], base: Path) -> None:
    """40 answers of 6 adapters and of the base alone, through 4 slots and 8 rows; prompts from 3 tokens to more than a
    chunk."""
    loaded, draw, cache = Loaded(versions[0]), random.Random(0), AdapterCache(8)
    slots = Slots(loaded.model, 4, loaded.dtype)
    asked: list[tuple[Version | None, Sequence]] = []
    begin = tokens(draw, 40)
    for _ in range(40):
        version = draw.choice([*versions, None])
        prompt = begin[: draw.choice([0, 25, 40])] + tokens(draw, draw.choice([3, 5, 20, 30, 90, CHUNK + 50]))
        limit = draw.choice([1, 2, 8, 30, 60])
        adapter = None if version is None else cache.get(version)
        asked.append((version, sequence(prompt, limit, adapter, ends=frozenset({1}))))
    run(Batch(loaded.model, slots), [row for _, row in asked], rows=8, slots=slots)
    assert slots.evictions > 0
    for version in (*versions, None):
        model = AutoModelForCausalLM.from_pretrained(base).eval()
        if version is not None:
            model = PeftModel.from_pretrained(model, version.weights).eval()
        for own, row in asked:
            if own is version:
                assert row.tokens == greedy(model, row.prompt, row.limit)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(GPT2Config(**TINY, n_embd=32, n_layer=3, n_head=4), id="learned positions"),
        pytest.param(
            OPTConfig(**TINY, hidden_size=32, ffn_dim=64, num_hidden_layers=3, num_attention_heads=4), id="opt"
        ),
        pytest.param(BloomConfig(**TINY, hidden_size=32, n_layer=3, n_head=4), id="alibi"),
        pytest.param(Qwen3Config(**GROUPED, head_dim=8), id="grouped heads"),
        pytest.param(MistralConfig(**GROUPED, sliding_window=8), id="sliding window"),
        pytest.param(Gemma2Config(**GROUPED, head_dim=8, sliding_window=8), id="every other layer slides, softcap"),
    ],
)
def test_rows_of_other_architectures(config: Any) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    draw = random.Random(1)
    begin = tokens(draw, 20)
    lengths = [(draw.choice([0, 20]), draw.choice([2, 7, 25]), draw.choice([3, 9, 20])) for _ in range(12)]
    asked = [sequence(begin[:shared] + tokens(draw, own), limit) for shared, own, limit in lengths]
    run(Batch(model, Slots(model, 1, torch.float32)), asked, rows=4)
    for row in asked:
        assert row.tokens == greedy(model, row.prompt, row.limit, eos_token_id=None)


def test_a_row_of_nan_leaves_no_trace(versions: list[Version]) -> None:
    loaded, cache = Loaded(versions[0]), AdapterCache(8)
    slots = Slots(loaded.model, 4, loaded.dtype)
    good, bad = cache.get(versions[0]), cache.get(versions[1])
    broken = Adapter("broken@1", bad.rank, bad.targets, {name: part * float("nan") for name, part in bad.state.items()})
    draw = random.Random(3)
    prompts = [tokens(draw, count) for count in (4, 30, 12)]
    alone = [sequence(prompt, 20, good) for prompt in prompts]
    run(Batch(loaded.model, slots), alone, 3, slots)
    batch = Batch(loaded.model, slots)
    beside = [sequence(prompt, 20, good) for prompt in prompts]
    poison = [sequence(tokens(draw, 40), 20, broken) for _ in range(3)]
    run(batch, [row for pair in zip(poison, beside, strict=True) for row in pair], 3, slots)
    assert [row.tokens for row in beside] == [row.tokens for row in alone]
    refused = [row.refusal for row in poison if row.refusal is not None]
    assert [(refusal.code, refusal.status) for refusal in refused] == [("no_numbers", 422)] * 3
    assert not any(row.tokens for row in poison)


def test_a_dropped_row_frees_its_adapter_and_its_place(versions: list[Version]) -> None:
    loaded, cache = Loaded(versions[0]), AdapterCache(8)
    slots = Slots(loaded.model, 1, loaded.dtype)
    batch = Batch(loaded.model, slots)
    first, long = (sequence([5] * length, 50, cache.get(versions[0])) for length in (4, CHUNK + 9))
    assert slots.hold(first.adapter)
    assert slots.hold(long.adapter)
    batch.admit([first, long])
    batch.step()
    assert not slots.hold(cache.get(versions[1]))  # the one slot is in use
    for row in (long, first):
        batch.drop(row)
    assert len(batch) == 0
    assert slots.hold(cache.get(versions[1]))


def test_the_cache_forgets_a_crowd(versions: list[Version]) -> None:
    loaded = Loaded(versions[0])
    batch = Batch(loaded.model, Slots(loaded.model, 1, loaded.dtype))
    run(batch, [sequence([7] * 40, CONTEXT - 50)], 1)
    assert not batch._cache.layers  # thousands of columns are given back
    run(batch, [sequence([7] * 4, 4)], 1)
    assert batch._cache.layers  # a few are kept for the next


def test_llama_config_masks_are_made_once() -> None:
    from serve.engine.batch import _masks_are_4d

    plain = AutoModelForCausalLM.from_config(LlamaConfig(**GROUPED)).config
    sliding = AutoModelForCausalLM.from_config(MistralConfig(**GROUPED, sliding_window=8)).config
    assert _masks_are_4d(plain)
    assert not _masks_are_4d(sliding)
