"""Rewards for completions: built in, by import path, or by a model that `method: {type: reward}` trained.

A function is called as TRL calls it: `completions` (texts, or lists of turns), the other columns of the rows as
keywords (`answer` among them), and a list of floats comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from ftlib.config import GRPO, RLOO, Experiment, RewardFunction
from ftlib.errors import ConfigError, nearest
from ftlib.methods.import_path import load_function

REWARD_MODEL = "reward_model"
Function = Callable[..., list[float]]


def exact_match(completions: list[Any], answer: list[str], pattern: str | None = None, **columns: Any) -> list[float]:
    """1 where the completion says what the row's answer says, else 0. `pattern`: a regular expression whose first
    group (or whole match) is compared, in both: GSM8K's is '#### (-?[0-9,.]+)'."""
    return [
        float(_said(_text(completion), pattern) == _said(right, pattern) != "")
        for completion, right in zip(completions, answer, strict=True)
    ]


def regex(completions: list[Any], pattern: str, **columns: Any) -> list[float]:
    """1 where the pattern is found in the completion, else 0."""
    return [float(re.search(pattern, _text(completion), re.DOTALL) is not None) for completion in completions]


def length(completions: list[Any], completion_ids: list[list[int]], target: int, **columns: Any) -> list[float]:
    """1 at `target` tokens, falling to 0 at none and at twice as many."""
    return [max(0.0, 1 - abs(len(ids) - target) / target) for ids in completion_ids]


BUILT_IN: dict[str, Function] = {"exact_match": exact_match, "regex": regex, "length": length}


def generation(method: GRPO | RLOO) -> dict[str, Any]:
    """What both of TRL's trainers take about writing completions."""
    keys = {"num_generations", "max_completion_length", "temperature", "top_p", "num_iterations", "epsilon"}
    weights = [reward.weight for reward in method.rewards]
    return {**method.model_dump(include=keys), "reward_weights": weights, "log_completions": False}


def reward_arguments(method: GRPO | RLOO) -> dict[str, Any]:
    """`reward_funcs` and their tokenizers, as TRL's trainers take them."""
    loaded = [_loaded(reward) for reward in method.rewards]
    return {
        "reward_funcs": [function for function, _ in loaded],
        "reward_processing_classes": [tokenizer for _, tokenizer in loaded],
    }


def check(experiment: Experiment) -> None:
    """Raises ConfigError for a reward that does not exist or is not told what it needs."""
    method = experiment.method
    assert isinstance(method, GRPO | RLOO)
    for index, reward in enumerate(method.rewards):
        where = f"method.rewards.{index}"
        if reward.function == REWARD_MODEL:
            if not Path(str(reward.arguments.get("model") or "?")).is_dir():
                raise ConfigError(
                    f"{where}: reward_model needs arguments: {{model: registry:NAME}} (or a trained reward model's "
                    f"folder), but has {reward.arguments or 'none'}."
                )
        else:
            _bound(_function(reward.function, where), reward, where)


def _loaded(reward: RewardFunction) -> tuple[Any, Any]:
    if reward.function == REWARD_MODEL:
        return _reward_model(Path(reward.arguments["model"]))
    where = f"method.rewards '{reward.function}'"
    return _bound(_function(reward.function, where), reward, where), None


def _bound(function: Function, reward: RewardFunction, where: str) -> Function:
    """The function with its arguments set. It keeps its name, because TRL logs a reward by it."""
    needed = {"regex": "pattern", "length": "target"}.get(reward.function)
    if needed and needed not in reward.arguments:
        raise ConfigError(f"{where}: {reward.function} needs arguments: {{{needed}: ...}}.")
    if isinstance(reward.arguments.get("pattern"), str):
        try:
            re.compile(reward.arguments["pattern"])
        except re.error as error:
            raise ConfigError(
                f"{where}: the pattern {reward.arguments['pattern']!r} is no regular expression: {error}."
            ) from None

    @wraps(function)
    def bound(*given: Any, **columns: Any) -> list[float]:
        return function(*given, **columns | reward.arguments)  # a column of the same name gives way

    return bound


def _function(name: str, where: str) -> Function:
    """A built-in, or what `package.module:function` or `file.py:function` names."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not name.rpartition(":")[0]:
        known = [*BUILT_IN, REWARD_MODEL]
        raise ConfigError(
            f"{where}: '{name}' is no reward: built in are {', '.join(known)}; your own is package.module:function or "
            f"file.py:function.{nearest(name, known)}"
        )
    return load_function(name, where)


def _reward_model(folder: Path) -> tuple[Any, Any]:
    """A trained reward model, whole or as an adapter on its base, and its tokenizer."""
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    is_adapter = (folder / "adapter_config.json").exists()
    kind = AutoPeftModelForSequenceClassification if is_adapter else AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def _text(completion: Any) -> str:
    """A completion as TRL hands it out: a text, or a list of turns."""
    return completion if isinstance(completion, str) else "\n".join(turn["content"] for turn in completion)


def _said(text: str, pattern: str | None) -> str:
    if pattern is not None:
        found = re.search(pattern, text, re.DOTALL)
        text = (found.group(1) if found.groups() else found.group()) if found else ""
    return " ".join(text.casefold().split())
