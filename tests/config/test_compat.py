"""The compatibility table: each rule refuses what it names with a reason and a way out, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.config.compat import RULES
from ftlib.errors import ConfigError

LORA = {"type": "lora"}
GRPO = {"type": "grpo", "rewards": [{"function": "length", "arguments": {"target": 8}}], "num_generations": 4}
DISTILL = {"type": "distill", "teacher": "a-teacher"}
FEW = {"quantization": "nf4", "quantize_moe_experts": True}
HELD = {"type": "sft", "ewc": {"weight": 1.0, "data": "old.jsonl"}}
NF4 = {"quantization": "nf4"}
SPACE = {"space": {"train.learning_rate": [1e-3, 1e-4]}}

# What breaks exactly one rule, and the key that it is told to change.
MERGE = {"type": "merge", "models": {"a": "x", "b": "y"}}
MERGED = {"space": {"method.weights.a": [0.2, 0.4]}}
BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("adapter", {"method": MERGE, "adapter": LORA}),
    ("model.quantization", {"method": MERGE, "model": NF4}),
    ("model.init", {"method": MERGE, "model": {"init": "random"}}),
    ("scale.strategy", {"method": MERGE, "scale": {"strategy": "ddp", "num_workers": 2}}),
    ("sweep.scheduler", {"method": MERGE, "sweep": {**MERGED, "scheduler": {"type": "median"}}}),
    ("data.eval_split", {"method": MERGE, "data": {"eval_split": 0}}),
    ("train.qat", {"train": {"qat": "int4"}, "adapter": {"type": "ia3"}}),
    ("train.qat", {"train": {"qat": "int4"}, "adapter": LORA, "model": NF4}),
    ("train.qat", {"train": {"qat": "int4"}, "method": {"type": "reward"}}),
    ("train.qat", {"train": {"qat": "int4"}, "method": {"type": "kto"}}),
    ("train.qat", {"train": {"qat": "int4"}, "method": HELD}),
    ("train.qat", {"train": {"qat": "int4"}, "scale": {"strategy": "fsdp", "num_workers": 2}}),
    ("adapter", {"model": {"init": "random"}, "adapter": LORA}),
    ("model.quantization", {"model": {"quantization": "nf4"}}),
    ("model.quantization", {"model": {"quantization": "int8"}, "adapter": {"type": "layers"}}),
    ("adapter.init_lora_weights", {"model": NF4, "adapter": {**LORA, "init_lora_weights": "pissa_niter_4"}}),
    ("adapter.init_lora_weights", {"adapter": {**LORA, "init_lora_weights": "loftq"}}),
    ("adapter.use_dora", {"model": {"quantization": "int8"}, "adapter": {**LORA, "use_dora": True}}),
    ("train.activation_checkpointing", {"train": {"activation_checkpointing": True}, "adapter": {"type": "prefix"}}),
    ("train.tf32", {"train": {"tf32": True}}),
    ("scale.strategy", {"model": NF4, "adapter": LORA, "scale": {"strategy": "fsdp", "num_workers": 2}}),
    ("scale.strategy", {"adapter": {**LORA, "lora_fa": True}, "scale": {"strategy": "fsdp", "num_workers": 2}}),
    ("method.freeze", {"method": {"type": "classify", "freeze": "encoder"}, "adapter": LORA}),
    ("adapter.init_lora_weights", {"method": {"type": "dpo"}, "adapter": {**LORA, "init_lora_weights": "pissa"}}),
    ("adapter.init_lora_weights", {"method": {"type": "kto"}, "adapter": {**LORA, "init_lora_weights": "olora"}}),
    (
        "adapter.init_lora_weights",
        {"method": {**GRPO, "beta": 0.1}, "adapter": {**LORA, "init_lora_weights": "pissa"}},
    ),
    ("data.packing", {"method": {"type": "dpo"}, "data": {"packing": True}}),
    ("data.packing", {"method": {**DISTILL, "kind": "logit"}, "data": {"packing": True}}),
    ("data.train_on_prompt", {"method": {"type": "classify"}, "data": {"train_on_prompt": True}}),
    ("adapter.type", {"method": {**DISTILL, "kind": "on_policy"}, "adapter": {"type": "prefix"}}),
    ("adapter.type", {"method": {"type": "dpo"}, "adapter": {"type": "adalora"}}),
    ("adapter.type", {"method": {"type": "orpo"}, "adapter": {"type": "prompt"}}),
    ("scale.strategy", {"method": {**DISTILL, "kind": "feature"}, "scale": {"strategy": "fsdp", "num_workers": 2}}),
    (
        "train.per_device_train_batch_size",
        {"method": {**DISTILL, "kind": "relation"}, "train": {"per_device_train_batch_size": 2}},
    ),
    ("train.per_device_train_batch_size", {"method": GRPO, "train": {"per_device_train_batch_size": 6}}),
    ("train.per_device_eval_batch_size", {"method": GRPO, "train": {"per_device_eval_batch_size": 6}}),
    ("sweep.metric", {"method": GRPO, "sweep": {**SPACE, "metric": "eval_loss"}}),
    (
        "sweep.scheduler",
        {
            "scale": {"strategy": "ddp", "num_workers": 2},
            "sweep": {**SPACE, "scheduler": {"type": "pbt"}, "search": {"type": "random"}},
        },
    ),
    ("model.init", {"model": {"init": "random"}, "method": {"type": "dpo"}}),
    ("data.eval_split", {"data": {"eval_split": 0}, "sweep": SPACE}),
    ("data.eval_split", {"data": {"eval_split": 0}, "method": DISTILL}),
    ("train.early_stopping_patience", {"data": {"eval_split": 0}, "train": {"early_stopping_patience": 2}}),
    ("data.long_rows", {"method": {"type": "dpo"}, "data": {"long_rows": "split"}}),
    ("data.long_rows", {"method": {"type": "classify"}, "data": {"long_rows": "split"}}),
    ("data.long_rows", {"method": {"type": "pretrain"}, "data": {"long_rows": "drop"}}),
    ("data.labels", {"data": {"labels": {"case": "lower"}}}),
    ("train.layer_lr_decay", {"train": {"layer_lr_decay": 0.9}, "adapter": {"type": "prompt"}}),
    ("train.layer_lr_decay", {"train": {"layer_lr_decay": 0.9}, "adapter": {**LORA, "lora_plus_ratio": 4}}),
    ("train.layer_lr_decay", {"train": {"layer_lr_decay": 0.9}, "scale": {"strategy": "fsdp", "num_workers": 2}}),
    ("train.unfreeze_steps", {"train": {"unfreeze_steps": 5}, "method": {"type": "classify", "freeze": "encoder"}}),
    ("train.unfreeze_steps", {"train": {"unfreeze_steps": 5}, "scale": {"strategy": "ddp", "num_workers": 2}}),
    ("train.shifted_attention", {"train": {"shifted_attention": 8}, "method": {"type": "dpo"}}),
    ("train.shifted_attention", {"train": {"shifted_attention": 8}, "adapter": {"type": "prefix"}}),
    ("train.shifted_attention", {"train": {"shifted_attention": 8}, "model": {"attn_implementation": "eager"}}),
    ("method.ewc", {"method": HELD, "adapter": {"type": "ia3"}}),
    ("method.ewc", {"method": HELD, "adapter": LORA, "model": NF4}),
    ("method.ewc", {"method": HELD, "scale": {"strategy": "fsdp", "num_workers": 2}}),
    ("adapter", {"method": {**DISTILL, "kind": "mutual"}, "adapter": LORA}),
    ("adapter.modules_to_save", {"adapter": {**LORA, "modules_to_save": ["x"]}, "train": {"layer_lr_decay": 0.9}}),
    ("model.quantize_moe_experts", {"adapter": {**LORA, "target_parameters": ["x"]}, "model": FEW}),
    ("scale.strategy", {"adapter": LORA, "model": FEW, "scale": {"strategy": "deepspeed", "stage": 3}}),
    ("scale.strategy", {"method": {**DISTILL, "kind": "mutual"}, "scale": {"strategy": "ddp", "num_workers": 2}}),
    ("method.kind", {"method": {**DISTILL, "kind": "mutual"}, "train": {"unfreeze_steps": 5}}),
]


def whole(parts: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "name": "x",
        "model": {"name_or_path": "a-model"},
        "data": {"train": "x.jsonl"},
        "method": {"type": "sft"},
    }
    for key, value in parts.items():
        tree[key] = {**tree[key], **value} if key in ("model", "data") else value
    return tree


@pytest.mark.parametrize(("key", "parts"), BROKEN, ids=[f"{n}-{key}" for n, (key, _) in enumerate(BROKEN)])
def test_each_rule_gives_its_reason_and_a_way_out(key: str, parts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        Experiment.parse(whole(parts))
    message = str(error.value)
    assert message.startswith(f"experiment: {key}: ")
    assert sum(rule.sentence in message for rule in RULES) >= 1


def test_every_rule_is_broken_by_one_of_these() -> None:
    said = set()
    for _, parts in BROKEN:
        with pytest.raises(ConfigError) as error:
            Experiment.parse(whole(parts))
        said |= {rule.sentence for rule in RULES if rule.sentence in str(error.value)}
    assert said == {rule.sentence for rule in RULES}


def test_online_methods_without_a_reference_may_move_the_base() -> None:
    Experiment.parse(whole({"method": {**GRPO, "beta": 0}, "adapter": {**LORA, "init_lora_weights": "pissa"}}))


def test_a_pair_of_a_space_is_named_before_it_costs() -> None:
    """Each value alone is possible."""
    tree = whole({"method": {**DISTILL, "kind": "logit"}})
    tree["sweep"] = {"space": {"method.kind": ["logit", "relation"], "train.per_device_train_batch_size": [2, 8]}}
    with pytest.raises(ConfigError) as error:
        Experiment.parse(tree)
    assert "point method.kind=relation, train.per_device_train_batch_size=2" in str(error.value)
    tree["sweep"]["space"]["train.per_device_train_batch_size"] = [4, 8]
    Experiment.parse(tree)


def test_a_value_of_a_space_is_named_too() -> None:
    tree = whole({"adapter": LORA, "method": {"type": "dpo"}})
    tree["sweep"] = {"space": {"adapter.init_lora_weights": [True, "pissa"]}}
    with pytest.raises(ConfigError, match=r"sweep.space.adapter.init_lora_weights: the value 'pissa' is not possible"):
        Experiment.parse(tree)


def test_paths_are_made_absolute_wherever_they_stand(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("old.jsonl", "mine.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "reward").mkdir()
    rewards = ["mine.py:f", {"function": "reward_model", "arguments": {"model": "reward"}}, "exact_match"]
    tree = whole({"method": {**GRPO, "rewards": rewards}, "data": {"replay": {"train": "old.jsonl"}}})
    anchored = Experiment.parse(tree).anchored()
    assert anchored.data.replay is not None
    assert anchored.data.replay.train == str(tmp_path / "old.jsonl")
    mine, model, built_in = anchored.method.rewards
    assert mine.function == f"{tmp_path}/mine.py:f"
    assert model.arguments["model"] == str(tmp_path / "reward")
    assert built_in.function == "exact_match"
    assert anchored.model.name_or_path == "a-model"  # not here: the Hub's
