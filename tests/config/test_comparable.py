"""One leaderboard, one evaluation: every key of the schema is classed, and every method says what it is compared by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from ftlib.config import Experiment
from ftlib.config.comparable import CHANGES
from ftlib.config.compat_table import METHODS
from ftlib.config.messages import models_in
from ftlib.errors import ConfigError
from tests.config.test_compat import GRPO, LORA, whole

# What leaves the rows, the tokens and the meaning of every metric as they are, and so can be swept. A new key of the
# schema goes in here, or into `CHANGES`, or into its method's `moves`.
KEEPS = {
    # how the same base computes
    *("model.dtype", "model.quantization", "model.attn_implementation", "model.init", "model.config"),
    *("model.trust_remote_code", "model.quantize_moe_experts"),
    # training rows only
    *("data.packing", "data.replay", "data.replay.train", "data.replay.fraction", "data.replay.format"),
    *("data.replay.columns", "data.replay.hub_config", "data.replay.hub_split"),
    # how it is trained, and how often it is looked at
    *("train.learning_rate", "train.num_train_epochs", "train.max_steps", "train.per_device_train_batch_size"),
    *("train.per_device_eval_batch_size", "train.gradient_accumulation_steps", "train.lr_scheduler_type"),
    *("train.warmup_steps", "train.weight_decay", "train.max_grad_norm", "train.optim", "train.adam_beta1"),
    *("train.adam_beta2", "train.adam_epsilon", "train.optim_args", "train.optim_target_modules", "train.bf16"),
    *("train.tf32", "train.activation_checkpointing", "train.neftune_noise_alpha", "train.logging_steps"),
    *("train.eval_strategy", "train.eval_steps", "train.evals_per_epoch", "train.save_steps", "train.seed"),
    *("train.early_stopping_patience", "train.early_stopping_threshold", "train.dataloader_num_workers"),
    *("train.lr_scheduler_kwargs", "SFT.loss_type", "SFT.router_aux_loss_coef", "Pretrain.router_aux_loss_coef"),
    *("train.layer_lr_decay", "train.unfreeze_steps", "train.shifted_attention", "train.qat"),
    *("Merge.merge_method", "Merge.weights", "Merge.normalize", "Merge.density"),
    *("SFT.ewc", "SFT.ewc.weight", "SFT.ewc.data", "SFT.ewc.rows"),
    # the method's, where they are in training alone
    *("Classify.freeze", "DPO.precompute_ref_log_probs", "KTO.precompute_ref_log_probs"),
    *("GRPO.num_generations", "GRPO.num_iterations", "GRPO.epsilon", "GRPO.beta", "GRPO.loss_type"),
    *("GRPO.scale_rewards", "RLOO.num_generations", "RLOO.num_iterations", "RLOO.epsilon", "RLOO.beta"),
    "RLOO.normalize_advantages",
    # a student is evaluated on the labels alone; `kind` is looked at value by value (`on_policy` has other rows)
    *("Distill.kind", "Distill.teacher", "Distill.teacher_revision", "Distill.temperature", "Distill.alpha"),
    *("Distill.top_k", "Distill.layer_map", "Distill.distance_weight", "Distill.angle_weight", "Distill.beta"),
    *("Distill.max_completion_length", "Distill.reasoning", "Distill.teacher_name", "Distill.teacher_api_key_env"),
}
LISTS = ("data.train.", "method.rewards.")  # members of lists have no path that could be swept


def keys(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in models_in(field.annotation):
            if f"{prefix}{name}." not in LISTS:
                yield from keys(inner, f"{prefix}{name}.")


def sections(name: str) -> list[type[BaseModel]]:
    return list(models_in(Experiment.model_fields[name].annotation))


@pytest.mark.parametrize("name", ["model", "data", "train"])
def test_every_key_is_classed_once(name: str) -> None:
    (section,) = sections(name)
    known = {path for path in keys(section, f"{name}.") if path.rpartition(".")[0] not in CHANGES}
    kept, changing = ({path for path in names if path.startswith(f"{name}.")} for names in (KEEPS, set(CHANGES)))
    assert not kept & changing
    assert known == kept | changing, "class the new key: see KEEPS"


def experiments() -> list[Experiment]:
    return [Experiment.parse(whole({"method": method})) for method in METHODS.values()]


def test_every_key_of_a_method_is_classed_once() -> None:
    methods = {type(experiment.method): experiment.method for experiment in experiments()}
    assert len(methods) == len(sections("method"))
    for kind, method in methods.items():
        names = {path.removeprefix("method.") for path in keys(kind, "method.")}
        kept = {path.partition(".")[2] for path in KEEPS if path.startswith(f"{kind.__name__}.")}
        changing = {path.partition(".")[2] for path in CHANGES if path.startswith("method.")} & names
        assert names == kept | changing | set(method.moves), f"class the new key of {kind.__name__}: see KEEPS"
        assert not kept & (changing | set(method.moves))


def test_an_adapter_is_what_is_compared() -> None:
    """Nothing of it decides what is evaluated."""
    assert not [path for path in CHANGES if path.startswith(("adapter.", "train."))]


def test_every_method_gives_its_metrics_and_what_moves_them() -> None:
    for experiment in experiments():
        metrics = experiment.method.metrics
        assert experiment.objective == next(iter(metrics.items()))
        for moved in experiment.method.moves.values():
            assert set(moved) <= metrics.keys()


@pytest.mark.parametrize("path", sorted(CHANGES))
def test_a_space_over_a_key_that_changes_the_evaluation_is_refused(path: str) -> None:
    tree = whole({"sweep": {"space": {path: [1, 2]}}})
    if path.startswith("method."):
        tree["method"] = {"type": "distill", "teacher": "t"}
    if path == "method.models":
        tree["method"] = {"type": "merge", "models": {"a": "x", "b": "y"}}
    with pytest.raises(ConfigError) as error:
        Experiment.parse(tree)
    message = str(error.value)
    assert message.startswith(f"experiment: sweep.space.{path}: {CHANGES[path]}")
    assert f"make a run for each value ({path}=... on the command line)" in message


def test_one_value_is_no_difference_and_fixed_rows_are_no_change() -> None:
    Experiment.parse(whole({"sweep": {"space": {"data.max_length": [32]}}}))
    data = {"train": "a.jsonl", "eval": "held-out.jsonl"}
    Experiment.parse(whole({"data": data, "sweep": {"space": {"data.train": ["a.jsonl", "b.jsonl"]}}}))
    with pytest.raises(ConfigError, match=r"name fixed rows in data.eval, or make a run for each value"):
        Experiment.parse(whole({"sweep": {"space": {"data.train": ["a.jsonl", "b.jsonl"]}}}))


@pytest.mark.parametrize(
    ("method", "path", "values", "instead"),
    [
        ({"type": "dpo"}, "method.beta", [0.1, 0.3], "eval_rewards/accuracies"),
        ({"type": "dpo"}, "method.label_smoothing", [0.0, 0.1], "eval_rewards/accuracies"),
        ({"type": "kto"}, "method.beta", {"min": 0.01, "max": 0.5}, "eval_rewards/accuracies"),
        ({"type": "kto"}, "method.desirable_weight", [1.0, 2.0], "eval_rewards/accuracies"),
        ({"type": "orpo"}, "method.beta", [0.1, 0.3], "eval_rewards/accuracies"),
        ({"type": "reward"}, "method.center_rewards_coefficient", [0.1, 0.01], "eval_accuracy"),
        ({"type": "classify"}, "method.label_smoothing", [0.0, 0.1], "eval_accuracy"),
    ],
)
def test_a_key_that_scales_the_metric_names_one_that_it_does_not(
    method: dict[str, Any], path: str, values: Any, instead: str
) -> None:
    tree = whole({"method": method, "sweep": {"space": {path: values}}})
    says = (
        rf"sweep.space.{path}: it changes what eval_loss means, .* use sweep.metric: {instead}, or make a run for each"
    )
    with pytest.raises(ConfigError, match=says):
        Experiment.parse(tree)
    tree["sweep"]["metric"] = instead
    assert Experiment.parse(tree).objective == (instead, "max")


def test_how_completions_are_written_is_the_same_for_all() -> None:
    tree = whole({"method": GRPO, "train": {"per_device_eval_batch_size": 4, "per_device_train_batch_size": 4}})
    tree["sweep"] = {"space": {"method.temperature": [0.7, 1.0]}}
    with pytest.raises(ConfigError, match=r"it changes what eval_reward means, .* compared: make a run for each value"):
        Experiment.parse(tree)
    tree["sweep"] = {"space": {"method.beta": [0.0, 0.1]}}
    Experiment.parse(tree)


def test_a_student_is_evaluated_without_its_teacher() -> None:
    tree = whole({"method": {"type": "distill", "teacher": "t"}})
    tree["sweep"] = {"space": {"method.temperature": [1.0, 2.0], "method.alpha": [0.3, 0.7], "method.kind": ["logit"]}}
    Experiment.parse(tree)
    tree["sweep"]["space"]["method.kind"] = ["logit", "on_policy"]
    with pytest.raises(ConfigError, match="the value 'on_policy' trains on other rows"):
        Experiment.parse(tree)


@pytest.mark.parametrize(
    ("method", "sweep", "says"),
    [
        (
            {"type": "classify"},
            {"metric": "accuracy"},
            "gives: eval_loss, eval_accuracy, eval_f1_macro. Did you mean 'eval_accuracy'?",
        ),
        ({"type": "dpo"}, {"metric": "accuracies"}, "Did you mean 'eval_rewards/accuracies'?"),
        ({"type": "sft"}, {"metric": "eval_los"}, "Did you mean 'eval_loss'?"),
        (
            {"type": "sft"},
            {"metric": "eval_accuracy"},
            "method.type 'sft' gives: eval_loss, eval_mean_token_accuracy, eval_bits_per_byte.",
        ),
        (
            {"type": "sft"},
            {"mode": "max"},
            "sweep.mode is 'max', but eval_loss is better the lower it is: use min, or drop mode.",
        ),
        (
            {"type": "classify"},
            {"metric": "eval_accuracy", "mode": "min"},
            "eval_accuracy is better the higher it is: use max, or drop mode.",
        ),
    ],
)
def test_a_metric_that_decides_nothing_is_refused(method: dict[str, Any], sweep: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        Experiment.parse(whole({"method": method, "sweep": {"space": {"train.learning_rate": [1e-3, 1e-4]}, **sweep}}))
    assert says in str(error.value)


def test_mode_follows_the_metric() -> None:
    space = {"train.learning_rate": [1e-3, 1e-4]}
    tree = whole({"method": {"type": "classify"}, "sweep": {"space": space, "metric": "eval_f1_macro"}})
    assert Experiment.parse(tree).objective == ("eval_f1_macro", "max")
    rewards = ["exact_match", {"function": "mine.py:shortness"}]
    tree = whole({"method": {**GRPO, "rewards": rewards}, "train": {"per_device_eval_batch_size": 4}})
    tree["train"]["per_device_train_batch_size"] = 4
    tree["sweep"] = {"space": space, "metric": "eval_rewards/shortness/mean"}
    assert Experiment.parse(tree).objective == ("eval_rewards/shortness/mean", "max")


def test_a_grid_is_tried_whole_and_once() -> None:
    sweep = {"space": {"train.learning_rate": [1e-3, 1e-4], "adapter.r": [4, 8, 16]}, "search": {"type": "grid"}}
    grid = Experiment.parse(whole({"adapter": LORA, "sweep": sweep})).sweep
    assert grid is not None
    assert (grid.number_of_trials, grid.scheduler.type) == (6, "none")
    asked = Experiment.parse(
        whole({"adapter": LORA, "sweep": {**sweep, "num_samples": 6, "scheduler": {"type": "asha"}}})
    ).sweep
    assert asked is not None
    assert (asked.number_of_trials, asked.scheduler.type) == (6, "asha")
    with pytest.raises(ConfigError, match="num_samples is 2, but the grid has 6 points, each tried once"):
        Experiment.parse(whole({"adapter": LORA, "sweep": {**sweep, "num_samples": 2}}))
