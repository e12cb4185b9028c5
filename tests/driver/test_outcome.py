"""Whether anything is left to do, from the run directory alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.driver.outcome import has_ended
from ftlib.run.directory import Run


@pytest.mark.parametrize(
    ("events", "ended"),
    [
        (("started", "budget_over", "ended"), True),
        (("started", "budget_over", "ended", "evaluation_failed"), True),  # what comes after the end begins nothing
        (("started", "ended"), False),  # three trials were not proposed
        (("started", "budget_over", "ended", "interrupted"), False),
        (("started", "budget_over", "ended", "resumed"), False),
    ],
)
def test_a_budget_that_is_over_leaves_nothing_to_do(
    tree: dict[str, Any], tmp_path: Path, events: tuple[str, ...], ended: bool
) -> None:
    tree["sweep"] = {"space": {"train.learning_rate": {"min": 1e-4, "max": 1e-2}}, "num_samples": 4}
    experiment = Experiment.parse(tree)
    run = Run.create(tmp_path / "runs", "x", "", {"experiment": experiment.to_dict()})
    trial = run.new_trial()
    trial.set_state("finished")
    for event in events:
        run.log_event(event, **({"why": "sweep.time_budget_s was over"} if event == "budget_over" else {}))
    assert has_ended(experiment, run) is ended
