"""What a method minimizes, for a trial in a pack: which tokens of a row the model reads, and the loss of its outputs.

A solo trial's trainer is TRL's; an objective computes the same numbers from the same rows, and tests hold the two
equal. Torch is all it needs. One file a method, one line in `OBJECTIVES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ftlib.config import Experiment
from ftlib.methods.pack_losses.base import Objective, Scored, Tokens

OBJECTIVES: dict[str, str] = {
    "sft": "ftlib.methods.pack_losses.language",
    "pretrain": "ftlib.methods.pack_losses.language",
    "classify": "ftlib.methods.pack_losses.classify",
    "dpo": "ftlib.methods.pack_losses.dpo",
    "kto": "ftlib.methods.pack_losses.kto",
    "orpo": "ftlib.methods.pack_losses.orpo",
    "simpo": "ftlib.methods.pack_losses.simpo",
    "reward": "ftlib.methods.pack_losses.reward",
    "distill": "ftlib.methods.pack_losses.distill",
}


def objective(experiment: Experiment, data: Any, base: Any) -> Objective:
    """The objective of one trial. `base` is the pack's frozen model, which computes what a reference or a teacher says.

    What is the same for every trial of a sweep is computed once, and read from FTLIB_HOME/cache by the others.
    """
    made: Objective = import_module(OBJECTIVES[experiment.method.type]).make(experiment, data, base)
    return made


__all__ = ["OBJECTIVES", "Objective", "Scored", "Tokens", "objective"]
