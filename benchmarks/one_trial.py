"""A trial of an experiment, trained alone: what several benchmarks measure."""

from __future__ import annotations

from pathlib import Path

from ftlib.config import Experiment
from ftlib.data import prepare
from ftlib.models.base import load_tokenizer
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from ftlib.training.trial import run_trial


def trained(asked: Experiment, folder: Path) -> Path:
    """The folder of the trial's weights, in a run below `folder`. Raises what the training raises."""
    data = prepare(asked.data, "answers", load_tokenizer(asked.model))
    run = Run.create(folder, "run", "", {"experiment": asked.to_dict()})
    run.trial("000").path.mkdir()
    setting = Setting(run=str(run.path), data=str(data.path), resolved=asked.to_dict(), metric=asked.objective[0])
    run_trial(setting, "000", {}, lambda report: None)
    weights = run.trial("000").weights
    assert weights is not None
    return weights
