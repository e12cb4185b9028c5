"""A promotion at a terminal: a sentence for each check, and then the command that comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.driver.terminal import echo, say

if TYPE_CHECKING:
    from ftlib.registry.promotion import Conditions
    from ftlib.run.directory import Run


def promote_trial(run: Run, trial: str, name: str, conditions: Conditions | None = None) -> None:
    """A trial of a run as the next version of a name, once it is checked; says what was found, and what comes next."""
    from ftlib.registry import promotion

    conditions = conditions or promotion.Conditions()
    version = promotion.promote(run, run.trial(trial), name, conditions, say)
    echo(f"trial {trial} of {run.name} is now {version.id}")
    if conditions.canary is None:
        echo(f"serve it:  ftlib serve {name}")
