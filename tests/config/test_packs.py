"""Which sweeps can be packed: each reason once, and what is left is packed."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.config.packs import RULES, largest_rank, shapes, why_not_packed

LORA: dict[str, Any] = {"type": "lora", "r": 8}
TASKS = {"tasks": [{"name": "t", "data": "questions.jsonl", "metrics": ["exact_match"]}]}
SPACE = {"adapter.r": [4, 16], "train.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}


def experiment(**changes: Any) -> Experiment:
    tree: dict[str, Any] = {
        "name": "packs",
        "model": {"name_or_path": "a-model"},
        "data": {"train": "rows.jsonl"},
        "method": {"type": "sft"},
        "adapter": LORA,
        "sweep": {"space": SPACE},
    }
    for key, value in changes.items():
        tree[key] = {**(tree.get(key) or {}), **value} if isinstance(value, dict) else value
    return Experiment.parse(tree)


REASONS: list[tuple[dict[str, Any], str]] = [
    ({"adapter": None, "sweep": {"space": {"train.seed": [1, 2]}}}, "only LoRA adapters"),
    ({"adapter": {"use_dora": True, "lora_dropout": 0.1}}, "DoRA multiplies what is dropped"),
    ({"adapter": {"use_dora": True}, "model": {"quantization": "nf4"}}, "DoRA needs the norms"),
    ({"adapter": {"lora_fa": True}, "scale": {"resources_per_worker": {"GPU": 1}}}, "on CPUs alone"),
    ({"adapter": {"init_lora_weights": "pissa"}}, "a B of zeros"),
    ({"adapter": {"modules_to_save": ["embed_tokens"]}}, "no whole modules"),
    ({"method": {"type": "sft", "loss_type": "dft"}}, "method.loss_type: nll"),
    (
        {"method": {"type": "grpo", "rewards": [{"function": "length", "arguments": {"target": 9}}]}},
        "no loss for packs",
    ),
    ({"method": {"type": "distill", "kind": "feature", "teacher": "t"}}, "no loss for packs"),
    ({"method": {"type": "dpo", "precompute_ref_log_probs": False}}, "precompute_ref_log_probs: true"),
    ({"scale": {"strategy": "ddp", "num_workers": 2}, "sweep": {"scheduler": {"type": "none"}}}, "strategy: single"),
    ({"train": {"optim": "adafactor"}}, "adamw_torch"),
    ({"train": {"neftune_noise_alpha": 5.0}}, "neftune_noise_alpha"),
    ({"train": {"unfreeze_steps": 5}}, "unfreeze_steps: null"),
    ({"train": {"qat": "int8"}}, "train.qat: null"),
    (
        {
            "adapter": None,
            "method": {"type": "merge", "models": {"a": "x", "b": "y"}},
            "sweep": {"space": {"method.weights.a": [0.2, 0.4]}},
        },
        "no training to share",
    ),
    ({"train": {"shifted_attention": 8}}, "shifted_attention: null"),
    ({"method": {"type": "sft", "ewc": {"weight": 1.0, "data": "old.jsonl"}}}, "method.ewc: null"),
    ({"train": {"bf16": True}}, "dtype: bfloat16"),
    ({"data": {"packing": True}}, "packing: false"),
    ({"scale": {"engine": "trainer"}}, "scale.engine: auto"),
    ({"sweep": {"metric": ["t/exact_match", "latency_ms"]}, "evaluation": TASKS}, "leave latency_ms out"),
    ({"train": {"dataloader_num_workers": 2}}, "dataloader_num_workers: 0"),
    ({"sweep": {"space": {"data.packing": [True, False]}}}, "trials differ in data.packing"),
    ({"sweep": {"space": {"adapter.init_lora_weights": [True, "gaussian"]}}}, "trials differ in adapter.init_lora"),
    ({"sweep": {"space": {"train.activation_checkpointing": [True, False]}}}, "trials differ in train.activation"),
]


@pytest.mark.parametrize(("changes", "reason"), REASONS)
def test_what_cannot_be_packed_is_said(changes: dict[str, Any], reason: str) -> None:
    assert reason in str(why_not_packed(experiment(**changes)))


def test_every_rule_has_its_case() -> None:
    named = {reason for _, reason in RULES if any(said in reason for _, said in REASONS)}
    assert len(RULES) - len(named) == 1  # 'freeze: encoder' takes no adapter at all, which is refused earlier


@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "orpo", "simpo", "classify", "pretrain", "reward"])
def test_what_can_be_packed(method: str) -> None:
    assert why_not_packed(experiment(method={"type": method})) is None


def test_the_largest_rank_is_the_banks() -> None:
    assert largest_rank(experiment()) == 16
    assert largest_rank(experiment(sweep={"space": {"adapter.r": {"min": 2, "max": 64}}})) == 64
    assert largest_rank(experiment(sweep={"space": {"train.learning_rate": [1e-3]}})) == 8


def test_trials_may_adapt_other_layers_with_other_ranks() -> None:
    space = {
        "adapter.target_modules": ["all-linear", ["q_proj"]],
        "adapter.layers_to_transform": [None, [0, 1]],
        "adapter.rank_pattern": [{}, {"q_proj": 64}],
        "adapter.lora_plus_ratio": [2.0, 8.0],
    }
    made = experiment(sweep={"space": space})
    assert why_not_packed(made) is None
    assert largest_rank(made) == 64
    found = [(shape.target_modules, shape.layers_to_transform) for shape in shapes(made)]
    assert len(found) == 8
    assert (["q_proj"], [0, 1]) in found
    assert shapes(experiment()) == [experiment().adapter]


def test_off_may_be_written_as_yaml_reads_it() -> None:
    assert experiment(sweep={"pack": False}).sweep.pack == "off"
    assert experiment(sweep={"pack": 4}).sweep.pack == 4
    assert experiment().sweep.pack == "auto"
