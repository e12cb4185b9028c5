"""The figures that `when` looks at: what the endpoint's logs say since the data was last taken."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.config.pipeline import MonitorStep, Pipeline
from ftlib.errors import InputError
from ftlib.run.pipelines import PipelineFolder

if TYPE_CHECKING:
    from ftlib.registry.monitor import Report

DAY = 86400.0


def figures(pipeline: Pipeline, folder: PipelineFolder) -> dict[str, float | None]:
    """Each figure now; None where it is not known: before the first time, or of too few requests."""
    until, step = folder.until, pipeline.monitor
    found: dict[str, float | None] = {"drift": None, "new_rows": None, "age": None}
    if until is not None:
        found["age"] = round((time.time() - until) / DAY, 3)
    if step is not None:
        found["new_rows"] = float(_new_rows(step, until))
        report, _ = monitored(step)
        found["drift"] = None if report is None else report.drift
    return found


def monitored(step: MonitorStep) -> tuple[Report | None, str]:
    """What the logs say of a name; None, with the reason, where they say nothing yet. Raises InputError for a name that
    is not in the registry."""
    from ftlib.registry import registry
    from ftlib.registry.monitor import monitor

    registry.resolve(step.monitor)
    try:
        return monitor(step.monitor, [Path(file) for file in step.log], step.hours), ""
    except InputError as error:
        return None, str(error)


def _new_rows(step: MonitorStep, since: float | None) -> int:
    from ftlib.data.sampled import sampled

    name = step.monitor.partition("@")[0]
    return sum(1 for _ in sampled(name, since=since if since is not None else 0.0))
