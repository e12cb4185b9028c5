"""A trial that trains nothing (`method: {type: merge}`): it merges finished models, and is evaluated once.

Its directory is that of any other trial, so what comes after reads it as one. Its steps and tokens are 0.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from peft import PeftModel

from ftlib.config import Experiment, ModelSection
from ftlib.data import Prepared
from ftlib.errors import FtlibError, TrialError
from ftlib.files.atomic import write_json
from ftlib.methods.merge import parts_of
from ftlib.models.base import count_parameters, identity, load_model
from ftlib.models.merging.parts import Parts
from ftlib.models.strategies import strategy_of
from ftlib.run.context import Setting
from ftlib.run.directory import Trial
from ftlib.training.build import build, numbers
from ftlib.training.recorder import POSITION, Record, Report


def run_merge(experiment: Experiment, setting: Setting, trial: Trial, report: Report) -> None:
    """Merges, evaluates, writes and reports. Raises TrialError for models that do not become one."""
    started = time.perf_counter()
    trial.forget_after(-1)  # of a trial that was killed: it begins again
    staging = trial.path / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    parts = _merged(experiment, staging / "merged")
    folder = staging / "merged"

    def load(asked: Experiment, data: Prepared, tokenizer: Any) -> Any:
        tokenizer.save_pretrained(folder)  # with the chat template that it is evaluated with
        return _loaded(parts, folder, asked)

    trainer, data = build(experiment, setting, trial, load)
    strategy_of(experiment).prepare_evaluation(trainer)
    trainer.evaluated_on(setting.part)
    record = Record(trial, experiment, setting, data)
    record.begin(0, 0, 0.0)
    record.started = started
    record.add(0, 0.0, 0, 0, numbers(trainer))
    write_json(folder / POSITION, {"step": 0})
    total, _ = count_parameters(trainer.model)
    facts = {
        "base": identity(experiment.model, trainer.model),
        "total_parameters": total,
        "trainable_parameters": 0,
        "merge": parts.facts(),
    }
    record.publish(folder, parts.kind, lambda: facts, (POSITION,))
    shutil.rmtree(staging)
    report(record.report(finished=True))


def _merged(experiment: Experiment, folder: Path) -> Parts:
    try:
        parts = parts_of(experiment)
        folder.parent.mkdir(parents=True)
        parts.write(folder, experiment.model)
    except FtlibError as error:
        raise TrialError(str(error)) from error
    return parts


def _loaded(parts: Parts, folder: Path, experiment: Experiment) -> Any:
    """The merged model, as whoever loads the trial's weights gets it."""
    if parts.kind == "adapter":
        return PeftModel.from_pretrained(load_model(experiment.model), folder)
    kept = experiment.model.model_dump(include={"dtype", "attn_implementation", "trust_remote_code"})
    return load_model(ModelSection.model_validate({"name_or_path": str(folder), **kept}))
