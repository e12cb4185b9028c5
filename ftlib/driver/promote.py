"""A promotion at a terminal: a sentence for each check, and then the command that comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.driver.terminal import echo, say

if TYPE_CHECKING:
    from ftlib.registry.promotion import Conditions
    from ftlib.run.directory import Run


def promote_trial(run: Run, trial: str, name: str, conditions: Conditions | None = None) -> None:
    """Puts a trial of a run into the registry as the next version of a name, once it has passed the checks. Prints what
    was found, and the command that comes next."""
    from ftlib.registry import promotion

    conditions = conditions or promotion.Conditions()
    version = promotion.promote(run, run.trial(trial), name, conditions, say)
    echo(f"trial {trial} of {run.name} is now {version.id}")
    if conditions.canary is None:
        echo(f"serve it:  ftlib serve {name}")
