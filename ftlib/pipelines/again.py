"""A pipeline's file opened, and which of its steps are done although nothing has changed."""

from __future__ import annotations

from pathlib import Path

from ftlib.config.pipeline import Pipeline
from ftlib.config.pipeline.order import after
from ftlib.pipelines.plan import Plan


def opened(file: str | Path) -> tuple[Plan, str]:
    """The plan of a file, and its text. Raises ConfigError for a file that cannot be used."""
    plan = Plan.of(Pipeline.load(file))
    return plan, Path(file).read_text(encoding="utf-8")


def again_of(plan: Plan, start: str | None, only: str | None) -> set[str]:
    """The steps that are asked for: `start` and all that need it, or `only`. Raises InputError for what is no step."""
    for name in (start, only):
        if name is not None:
            plan.check_name(name)
    if start is not None:
        return after(start, plan.needs)
    return {only} if only is not None else set()
