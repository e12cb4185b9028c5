"""The steps, each in the file of its name (`clean.py` has `STEP`). `step_of` finds one."""

from __future__ import annotations

from importlib import import_module

from ftlib.curate.step import Settings, Step


def step_of(name: str, settings: Settings = None) -> Step:
    """The step of a name; where its settings say which one (`step_for`), that. Raises InputError for settings that
    cannot be used."""
    module = import_module(f"{__name__}.{name}")
    step: Step = module.STEP if settings is None or not hasattr(module, "step_for") else module.step_for(settings)
    return step
