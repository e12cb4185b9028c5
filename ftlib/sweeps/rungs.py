"""Where trials are compared: the scheduler's rungs, and why there may be none. Light: `ftlib check` asks too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.config import Asha, Experiment, NoScheduler, SchedulerSection
from ftlib.errors import ConfigError
from ftlib.run.context import Rungs
from ftlib.training.estimate import GRACE, budget, grace

if TYPE_CHECKING:
    from ftlib.data import DataReport

FIRST_RUNG = 1 / 12  # of the budget: what recorded curves support (benchmarks/asha_replay.py)


def rungs_of(experiment: Experiment, data: DataReport) -> Rungs:
    """The rungs of a sweep over this data."""
    if experiment.sweep is None or why_never_stopped(experiment, data):
        return Rungs()
    return rungs_for(experiment.sweep.scheduler, *budget(experiment, data), grace(experiment, data))


def rungs_for(scheduler: SchedulerSection | None, tokens: int, steps: int, grace: tuple[int, int] = (0, 0)) -> Rungs:
    """The marks at which trials of a whole budget of `tokens` (or `steps`) evaluate for their scheduler.

    ASHA: the first rung's share of the budget, times powers of the reduction factor. Where the file does not say where
    the first stands, none stands before `grace`, in tokens and in steps, and a shorter trial has none. Others: `checks`
    marks, evenly spread.
    """
    if scheduler is None or isinstance(scheduler, NoScheduler):
        return Rungs()
    whole = tokens if scheduler.unit == "tokens" else steps
    asked = True
    if isinstance(scheduler, Asha):
        asked = scheduler.first_rung is not None
        early = 0 if asked else grace[0] if scheduler.unit == "tokens" else grace[1]
        first = whole * (scheduler.first_rung or FIRST_RUNG)
        marks = {max(early, round(first * scheduler.reduction_factor**power)) for power in range(scheduler.rungs)}
    else:
        marks = {int(whole * part / scheduler.checks) for part in range(1, scheduler.checks)}
    kept = tuple(sorted(mark for mark in marks if 0 < mark < whole))
    if asked and not kept:
        raise ConfigError(
            f"sweep.scheduler: a trial has only {whole} {scheduler.unit}, too few to compare: train longer."
        )
    return Rungs(scheduler.unit, kept)


def why_never_stopped(experiment: Experiment, data: DataReport) -> str | None:
    """Why ASHA stops none of these trials, as a sentence; None where it may, or is not asked."""
    scheduler = experiment.sweep.scheduler if experiment.sweep is not None else None
    if not isinstance(scheduler, Asha):
        return None
    if not experiment.method.trains:
        return "no trial is stopped early: a merge is evaluated once, at its end"
    rows = experiment.sweep.eval_rows if experiment.sweep is not None else "auto"
    compared = min(rows, data.eval_rows) if isinstance(rows, int) else data.eval_rows
    if compared < scheduler.min_eval_rows:
        return (
            f"no trial is stopped early: {compared} evaluation rows are too few to tell trials apart "
            f"(sweep.scheduler.min_eval_rows is {scheduler.min_eval_rows})"
        )
    if not rungs_for(scheduler, *budget(experiment, data), grace(experiment, data)).marks:
        return f"no trial is stopped early: none is before {GRACE} steps or an epoch, and the shortest ends by then"
    return None
