"""Event files for TensorBoard, one folder a trial; its tab HPARAMS shows the points beside the objective."""

from __future__ import annotations

import json
from typing import Any

from ftlib.run.directory import Run, Trial
from ftlib.run.layout import BASE, TENSORBOARD
from ftlib.run.tracking.names import OBJECTIVE, Names
from ftlib.run.tracking.results import Results, best_value


class TensorboardTracker:
    """Event files under `<run>/tensorboard/<trial>`: `tensorboard --logdir <run>/tensorboard`."""

    name = "tensorboard"

    def __init__(self, run: Run) -> None:
        self.run, self.names = run, Names.of(run)
        self.writers: dict[str, Any] = {}

    def log(self, trial: Trial, row: dict[str, Any]) -> None:
        """Takes one row."""
        writer = self._writer(trial, row["step"])
        for name, value in self.names.row(row).items():
            writer.add_scalar(name, value, row["step"])

    def end(self, trial: Trial, state: str) -> None:
        """Writes the trial's point and its objective, and closes its file."""
        rows = trial.metrics()
        step = rows[-1]["step"] if rows else 0
        writer = self._writer(trial, step)
        if trial.id != BASE:
            self._write_point(writer, trial, step)
        self.writers.pop(trial.id).close()

    def conclude(self, results: Results) -> None:
        """Its trials say it all."""

    def close(self) -> None:
        """Closes the files of trials that did not end."""
        while self.writers:
            self.writers.popitem()[1].close()

    def _writer(self, trial: Trial, step: int) -> Any:
        from tensorboardX import SummaryWriter

        if trial.id not in self.writers:
            folder = self.run.path / TENSORBOARD / trial.id
            self.writers[trial.id] = SummaryWriter(str(folder), filename_suffix=f".{step}")
        return self.writers[trial.id]

    def _write_point(self, writer: Any, trial: Trial, step: int) -> None:
        """Into the trial's own file: `SummaryWriter.add_hparams` would make a run of its own for it."""
        from tensorboardX.summary import hparams

        point = {name: _plain(value) for name, value in self.names.parameters(trial.params).items()}
        best = best_value(self.run, trial)
        if best is not None:
            writer.add_scalar(OBJECTIVE, best, step)
        for summary in hparams(point, {OBJECTIVE: best}):
            writer.file_writer.add_summary(summary)


def _plain(value: Any) -> Any:
    """TensorBoard knows numbers, texts and truth values."""
    return value if isinstance(value, str | int | float) else json.dumps(value)
