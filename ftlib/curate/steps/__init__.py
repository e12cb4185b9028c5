"""The steps, each in the file of its name (`clean.py` has `STEP`). `step_of` finds one."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from ftlib.config.recipe import STEP_NAMES
from ftlib.curate.step import Settings, Step
from ftlib.errors import InputError


def step_of(name: str, settings: Settings = None) -> Step:
    """The step of a name; where a module has several, that which its settings need (`step_for`). Raises
    InputError for one that recipes know and ftlib does not have yet."""
    if find_spec(f"{__name__}.{name}") is None:
        raise InputError(f"steps: '{name}' is not built yet: leave it out. There is {', '.join(built())}.")
    module = import_module(f"{__name__}.{name}")
    step: Step = module.STEP if settings is None or not hasattr(module, "step_for") else module.step_for(settings)
    return step


def built() -> list[str]:
    """The names of the steps that there are."""
    return [name for name in STEP_NAMES if find_spec(f"{__name__}.{name}") is not None]
