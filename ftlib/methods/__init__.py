"""The methods, one short file each: the trainer of a method, and what it checks before anything starts.

A method's module has `trainer(experiment, model, tokenizer, data, output_dir)`; its keys, and the rows and the head
that it needs, are in `ftlib.config.methods`. Modules are imported when they are asked for: TRL's take a second each.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ftlib.config import Experiment

METHODS: dict[str, str] = {
    "classify": "ftlib.methods.classify",
    "distill": "ftlib.methods.distill",
    "dpo": "ftlib.methods.dpo",
    "grpo": "ftlib.methods.grpo",
    "kto": "ftlib.methods.kto",
    "merge": "ftlib.methods.merge",
    "orpo": "ftlib.methods.orpo",
    "pretrain": "ftlib.methods.pretrain",
    "reward": "ftlib.methods.reward",
    "rloo": "ftlib.methods.rloo",
    "sft": "ftlib.methods.sft",
    "simpo": "ftlib.methods.simpo",
}
# Modules with a `check(experiment)` of what only the method can know to be wrong.
CHECKS: dict[str, str] = {
    "distill": "ftlib.methods.distill",
    "grpo": "ftlib.methods.rewards",
    "merge": "ftlib.methods.merge",
    "rloo": "ftlib.methods.rewards",
    "sft": "ftlib.methods.sft",
}


def load(name: str) -> ModuleType:
    """The module of a method."""
    return import_module(METHODS[name])


def check(experiment: Experiment) -> None:
    """Raises ConfigError for what only the method, or the libraries that it uses, can know. Starts nothing."""
    from ftlib.methods.arguments import check_arguments

    check_arguments(experiment)
    if module := CHECKS.get(experiment.method.type):
        import_module(module).check(experiment)


__all__ = ["METHODS", "check", "load"]
