"""`generate`: rows that a teacher writes of the rows that are there."""

from __future__ import annotations

from ftlib.config.recipe.making import GenerateStep
from ftlib.curate.step import WholeStep
from ftlib.curate.teachers.jobs import Asking, Later, asking
from ftlib.curate.written import SHOWN, write


def later(settings: GenerateStep) -> list[Later]:
    """What a kind of two turns asks after its first one."""
    twice = settings.kind in ("back_translate", "evolve")
    return [Later(settings.teacher, 1, settings.max_tokens)] if twice else []


def step_for(settings: GenerateStep) -> WholeStep:
    """The step of a kind."""
    shown = SHOWN + 1 if settings.kind == "self_instruct" else 0
    return asking(settings, Asking(write, later, shown=shown))
