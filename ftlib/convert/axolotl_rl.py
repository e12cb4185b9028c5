"""Axolotl's methods: what `rl`, `reward_model` and their keys become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.convert.conversion import Conversion, Function

METHODS = {"dpo": "dpo", "ipo": "dpo", "kto": "kto", "orpo": "orpo", "simpo": "simpo", "grpo": "grpo"}
GRPO = {
    "num_generations": "method.num_generations",
    "max_completion_length": "method.max_completion_length",
    "temperature": "method.temperature",
    "top_p": "method.top_p",
    "beta": "method.beta",
    "num_iterations": "method.num_iterations",
    "epsilon": "method.epsilon",
    "loss_type": "method.loss_type",
}
SPEED = (
    "use_vllm vllm_mode vllm_server_host vllm_server_port vllm_server_timeout log_completions "
    "num_completions_to_print vllm_enable_sleep_mode vllm_gpu_memory_utilization async_prefetch prefetch_depth "
    "vllm_sync_interval vllm_lora_sync reward_num_workers use_liger_loss"
)
NO_DPO = "it is for a method that this file does not have"


def method(conversion: Conversion) -> str:
    """The method by Axolotl's keys."""
    if conversion.get("rl"):
        return METHODS.get(str(conversion.get("rl")), "")
    if conversion.get("reward_model"):
        return "reward"
    return "pretrain" if conversion.get("pretraining_dataset") else "sft"


def _rl(conversion: Conversion, key: str, value: Any) -> None:
    if value not in METHODS:
        return conversion.refuse(key, f"ftlib has {', '.join(METHODS)}, and no '{value}'")
    settings: dict[str, Any] = {"method.type": METHODS[value]}
    return conversion.map(key, settings | ({"method.loss_type": "ipo"} if value == "ipo" else {}))


def _reward_model(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.map(key, {"method.type": "reward"}) if value is True else conversion.harmless(key, "it is off")


def _of(methods: tuple[str, ...], path: str) -> Function:
    """A key of some methods. The others do not read it."""

    def function(conversion: Conversion, key: str, value: Any) -> None:
        if method(conversion) not in methods:
            return conversion.harmless(key, NO_DPO)
        return conversion.map(key, {path: value})

    return function


def _rpo(conversion: Conversion, key: str, value: Any) -> None:
    if method(conversion) != "dpo":
        return conversion.harmless(key, NO_DPO)
    return conversion.map(key, {"method.loss_type": ["sigmoid", "sft"], "method.loss_weights": [1.0, value]})


def _trl(conversion: Conversion, key: str, value: Any) -> None:
    """The section of GRPO. Rewards are functions of a module of yours, `module.function` there, `module:function`
    here."""
    if not isinstance(value, Mapping) or method(conversion) != "grpo":
        return conversion.harmless(key, NO_DPO)
    for name, told in value.items():
        _trl_key(conversion, f"{key}.{name}", str(name), told, value)
    return conversion.map(key, {}, "each of its keys is told")


def _trl_key(conversion: Conversion, key: str, name: str, value: Any, section: Mapping[str, Any]) -> None:
    if value is None:
        return conversion.harmless(key, "it is empty")
    if name in GRPO:
        return conversion.map(key, {GRPO[name]: value})
    if name == "scale_rewards" and isinstance(value, bool):
        return conversion.map(key, {"method.scale_rewards": "group" if value else "none"})
    if name == "reward_funcs" and isinstance(value, list):
        weights = section.get("reward_weights") or [1.0] * len(value)
        rewards = [{"function": ":".join(str(one).rsplit(".", 1)), "weight": weight}
                   for one, weight in zip(value, weights, strict=False)]  # fmt: skip
        return conversion.map(key, {"method.rewards": rewards}, "the module must be found where ftlib runs", look=True)
    if name == "reward_weights":
        return conversion.map(key, {}, "each reward has its weight")
    if name in SPEED.split():
        return conversion.harmless(key, "completions are written by the model itself, in the trainer")
    return conversion.refuse(key, "grpo is computed as TRL does, with what method has")


FUNCTIONS: dict[str, Function] = {
    "rl": _rl,
    "reward_model": _reward_model,
    "rl_beta": _of(("dpo", "kto", "simpo", "orpo"), "method.beta"),
    "dpo_beta": _of(("dpo",), "method.beta"),
    "orpo_alpha": _of(("orpo",), "method.beta"),
    "simpo_gamma": _of(("simpo",), "method.simpo_gamma"),
    "cpo_alpha": _of(("simpo",), "method.cpo_alpha"),
    "kto_desirable_weight": _of(("kto",), "method.desirable_weight"),
    "kto_undesirable_weight": _of(("kto",), "method.undesirable_weight"),
    "dpo_loss_type": _of(("dpo",), "method.loss_type"),
    "dpo_loss_weights": _of(("dpo",), "method.loss_weights"),
    "dpo_label_smoothing": _of(("dpo", "simpo"), "method.label_smoothing"),
    "precompute_ref_log_probs": _of(("dpo", "kto"), "method.precompute_ref_log_probs"),
    "center_rewards_coefficient": _of(("reward",), "method.center_rewards_coefficient"),
    "rpo_alpha": _rpo,
    "trl": _trl,
    "num_labels": lambda conversion, key, value: (
        conversion.harmless(key, "a reward model has one score")
        if method(conversion) == "reward"
        else conversion.refuse(key, "a classifier has another head: set method.type: classify, and format it so")
    ),
}


def finish(conversion: Conversion) -> None:
    """The method, where no key has said it, and the defaults of TRL's trainers that are not ours."""
    found = method(conversion)
    if found:
        conversion.default("method.type", found)
    if found == "simpo":
        conversion.default("method.beta", 0.1)
        conversion.default("method.cpo_alpha", 1.0)
    if found in ("dpo", "kto", "orpo", "simpo", "reward", "grpo"):
        conversion.tree.get("data", {}).pop("packing", None)
