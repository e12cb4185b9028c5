"""Whether a run has spent its money or its hours."""

from __future__ import annotations

import time

from ftlib.config import Experiment
from ftlib.run.cost import spent
from ftlib.run.directory import Run

COUNT_SECONDS = 5.0  # between two sums of what the run has cost


class Budget:
    """`over` says which budget is; None while none is."""

    def __init__(self, run: Run, experiment: Experiment) -> None:
        self.over: str | None = None
        self._run, self._experiment, self._counted = run, experiment, 0.0

    def look(self) -> None:
        """Adds up what the run has spent, every few seconds."""
        if self.over is None and time.monotonic() - self._counted > COUNT_SECONDS:
            self._counted = time.monotonic()
            self.over = self._which()

    def _which(self) -> str | None:
        budget, scale = self._experiment.budget, self._experiment.scale
        if budget.max_cost is None and budget.max_hours is None:
            return None
        so_far = spent(self._run, scale.num_workers, running=True)
        cost = so_far.cost(scale)
        if budget.max_cost is not None and cost is not None and cost >= budget.max_cost:
            return f"budget.max_cost: {budget.max_cost:g} is spent"
        if budget.max_hours is not None and so_far.hours >= budget.max_hours:
            return f"budget.max_hours: {budget.max_hours:g} h are over"
        return None
