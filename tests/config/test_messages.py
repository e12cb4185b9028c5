"""What a person reads after a typo: the path, the value, what is allowed, the nearest name."""

from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.config.loader import set_dotted
from ftlib.errors import ConfigError


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("train.learning_rat", 1, "there is no key 'train.learning_rat'. Did you mean 'learning_rate'?"),
        ("learning_rate", 1, "Did you mean 'train.learning_rate'?"),
        ("lora_r", 8, "Here it is called adapter.r"),
        ("adapter.lora_rank", 8, "Here it is called adapter.r"),
        ("cutoff_len", 8, "Here it is called data.max_length"),
        ("sequence_len", 8, "Here it is called data.max_length"),
        ("micro_batch_size", 8, "Here it is called train.per_device_train_batch_size"),
        ("finetuning_type", "lora", "Here it is called adapter.type"),
        ("train.warmup_ratio", 0.1, "Here it is called train.warmup_steps"),
        ("train.gradient_checkpointing", True, "Here it is called train.activation_checkpointing"),
        ("adapter.type", "lorra", "bitfit, layers. Did you mean 'lora'?"),
        ("adapter", {"r": 8}, "adapter.type is missing: write one of: lora"),
        ("method.type", "sfft", "grpo, rloo, distill, merge. Did you mean 'sft'?"),
        ("method", {"type": "dpo", "loss_type": "simpo"}, "'simpo' is a method of its own: use method: {type: simpo}"),
        ("adapter", "lora", "must be a section: write adapter: {type: lora}"),
        ("lora_modules_to_save", [], "Here it is called adapter.modules_to_save"),
        ("qat", [], "ftlib does not have it: train.qat rounds weights alone"),
        ("group_by_length", True, "Leave it out: it is a matter of speed alone"),
        ("simpo", 1, "Here it is called method: {type: simpo}"),
        ("dataloader_num_workers", 4, "Did you mean 'train.dataloader_num_workers'?"),
        ("sequnce_len", 8, "'sequence_len' of other tools: Here it is called data.max_length"),
        ("scale.ghosts", 3, "there is no key 'scale.ghosts'. Known here: cpu_offload"),
        ("data.train", 5, "data.train is 5, but must be the name of a file, a folder or a data set, or a list of them"),
        ("data.train", [{"path": "x", "wieght": 2}], "no key 'data.train.0.wieght'. Did you mean 'weight'?"),
        ("data", {"train": ["x"], "format": "text"}, "format is said by each member of train"),
        ("method.type", "ppo", "merge. PPO needs four models at once: use grpo or rloo."),
        ("adapter.type", "qlora", "layers. Use type: lora, with model.quantization: nf4."),
        ("train.lr_scheduler_type", "polynomial", "constant_with_warmup, inverse_sqrt"),
        ("train.lr_scheduler_type", "cosine_with_min_lr", "needs its lowest rate, once"),
        ("train.lr_scheduler_kwargs", {"min_lr": 1e-5}, "min_lr: lr_scheduler_type 'cosine' takes num_cycles"),
        ("data.format", "alpacca", "data.format is 'alpacca', but must be one of: auto, alpaca"),
        ("method", {"type": "classify", "class_weights": "balancd"}, "none, balanced. Did you mean 'balanced'?"),
        ("method", {"type": "classify", "class_weights": {0: "x"}}, "class_weights.0 is 'x', but must be a number"),
        ("method", {"type": "classify", "class_weights": {1: 1, "1": 2}}, "the label '1' stands there twice"),
        ("data", {"train": "x", "labels": {"map": {1: "a", "1": "b"}}}, "labels.map: the label '1' stands there twice"),
        ("adapter.r", 0, "adapter.r is 0, but must be greater than or equal to 1"),
        ("adapter.r", "x", "adapter.r is 'x', but must be a whole number"),
        ("train.learning_rate", ".nan", "train.learning_rate is '.nan', but must be a number"),
        ("train.learning_rate", float("nan"), "finite"),
        ("train.eval_strategy", "steps", "eval_steps must say how many"),
        ("scale.strategy", "fsdb", "must be one of: single, ddp, fsdp, deepspeed. Did you mean 'fsdp'?"),
        ("scale.strategy", "ddp", "needs num_workers of 2 or more"),
        ("scale.num_workers", 2, "use strategy: ddp"),
        ("model", None, "model is None, but must be a section"),
        ("name", "a/b", "must be letters, digits"),
        ("evaluation", {"tasks": [{"name": "t", "data": "x", "metrics": [{}]}]}, "write one of: exact_match, contains"),
        (
            "evaluation",
            {"tasks": [{"name": "t", "data": "x", "metrics": [{"type": "regex"}]}]},
            "evaluation.tasks.0.metrics.0.pattern is missing",
        ),
        ("storage", "ftp://bucket/x", "use a path, s3://BUCKET/... or gs://BUCKET/..."),
        ("model.init", "random", "an adapter on random weights"),
        ("sweep", {"space": {}}, "sweep.space is empty"),
        ("sweep", {"space": {"adapter.r": 5}}, "5 is no dimension"),
        ("sweep", {"space": {"adapter.r": {"min": 8, "max": 4}}}, "min (8) must be below max (4)"),
        ("sweep", {"space": {"adapter.r": {"min": 4, "max": 8, "lg": 1}}}, "Did you mean 'log'?"),
    ],
)
def test_each_mistake_gets_its_sentence(tree: dict[str, Any], path: str, value: Any, says: str) -> None:
    set_dotted(tree, path, value)
    with pytest.raises(ConfigError) as raised:
        Experiment.parse(tree, "x.yaml")
    assert says in str(raised.value)
    assert str(raised.value).startswith("x.yaml: ")
    assert len(str(raised.value).splitlines()) == 1


def test_every_problem_is_listed_once(tree: dict[str, Any]) -> None:
    set_dotted(tree, "adapter.r", 0)
    set_dotted(tree, "train.seed", -1)
    with pytest.raises(ConfigError) as raised:
        Experiment.parse(tree, "x.yaml")
    assert len(str(raised.value).splitlines()) == 2
