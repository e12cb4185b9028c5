"""A promotion, with the tasks that it may depend on; at a terminal a sentence for each check, and the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.driver.terminal import echo, say

if TYPE_CHECKING:
    from ftlib.driver.task_gate import Conditions
    from ftlib.registry.promotion import Say
    from ftlib.registry.version import Version
    from ftlib.run.directory import Run, Trial


def promote(run: Run, trial: Trial, name: str, conditions: Conditions, say: Say) -> Version:
    """Puts a trial into the registry as the next version of a name, with what is known of it on tasks, once it has
    passed the gate. `say` hears what was found, a sentence at a time.

    Raises InputError for what cannot be promoted, and FtlibError for what the gate or the tasks hold back.
    """
    from ftlib.driver.task_gate import TaskGate
    from ftlib.registry import promotion

    gate = TaskGate(run, trial, conditions, say)
    decide = gate.decide if conditions.asks_for_tasks else None
    return promotion.promote(run, trial, name, conditions, say, gate.evaluation, decide)


def promote_trial(run: Run, trial: str, name: str, conditions: Conditions | None = None) -> None:
    """Puts a trial of a run into the registry as the next version of a name, once it has passed the checks. Prints what
    was found, and the command that comes next."""
    from ftlib.driver.task_gate import Conditions

    conditions = conditions or Conditions()
    version = promote(run, run.trial(trial), name, conditions, say)
    echo(f"trial {trial} of {run.name} is now {version.id}")
    if conditions.canary is None:
        echo(f"serve it:  ftlib serve {name}")
