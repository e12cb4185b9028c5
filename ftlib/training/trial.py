"""One trial, without Ray: load, train from the last position, and let a callback write what comes of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from ftlib.config import Experiment, Lora
from ftlib.errors import TrialError
from ftlib.files.json_files import append_row
from ftlib.models.adapter_files import check_tensors
from ftlib.models.strategies import strategy_of
from ftlib.run.context import Setting
from ftlib.run.directory import ALL_ROWS, ENDED, Run
from ftlib.run.layout import BASE, FIRST
from ftlib.run.trial_transfer import download, upload
from ftlib.training.build import build, numbers
from ftlib.training.merge import run_merge
from ftlib.training.recorder import Record, Report, closing_evaluation, copy_checkpoint
from ftlib.training.trainer_callback import TrialCallback


def run_trial(
    setting: Setting, trial_id: str, params: dict[str, Any], report: Report, donor: str | None = None
) -> None:
    """Trains one point, from its own checkpoint where there is one, or from `donor`'s (population-based training).

    `report` gets one mapping an evaluation: the metric, `step`, `tokens`; the last one has `finished: True`.
    Raises TrialError with a sentence for a person.
    """
    download(setting, trial_id)
    experiment = setting.experiment().at(params)
    trial = Run(Path(setting.run)).trial(trial_id)
    if setting.baseline and trial_id == FIRST:
        run_baseline(setting)
    done = closing_evaluation(trial, setting)
    if done and not donor:  # the driver died after the trial's last report and before it noted the end
        report({**done, "finished": True})
        return
    if not experiment.method.trains:
        run_merge(experiment, setting, trial, report)
        return
    if donor and donor != trial_id:
        download(setting, donor)
        copy_checkpoint(Run(Path(setting.run)).trial(donor), trial)
    trainer, data = build(experiment, setting, trial)
    trainer.evaluated_on(setting.part)
    journal = TrialCallback(trainer, trial, data, experiment, setting, report)
    trainer.add_callback(journal)
    checkpoint = trial.checkpoint
    if checkpoint is not None:
        check_tensors(checkpoint)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError as error:
        raise TrialError(_out_of_memory(experiment)) from error
    if trainer.state.global_step == 0:
        raise TrialError("no optimizer step was made: the training data gives no batch; add rows or epochs.")
    journal.finish()


def run_baseline(setting: Setting) -> None:
    """Evaluates the untuned base as `base`; once it has ended, it is not evaluated again.

    A base that cannot be evaluated is noted in its `status.json`; the trials go on.
    """
    trial = Run(Path(setting.run)).trial(BASE)
    if trial.state in ENDED:
        return
    trial.path.mkdir(exist_ok=True)
    try:
        experiment = setting.experiment()
        # transformers evaluates no quantized model without an adapter; a fresh LoRA computes what its base does.
        neutral = Lora(type="lora", r=1) if experiment.model.quantization else None
        experiment = experiment.model_copy(update={"adapter": neutral, "sweep": None})
        trainer, data = build(experiment, setting, trial)
        strategy_of(experiment).prepare_evaluation(trainer)
        started = time.perf_counter()
        record = Record(trial, experiment, setting, data)
        metrics = record.with_bits(numbers(trainer), None)
        if not setting.part.whole:
            trainer.evaluated_on(setting.part)
            metrics = {**record.with_bits(numbers(trainer), setting.part.rows), ALL_ROWS: metrics}
        row = {
            "step": 0,
            "epoch": 0.0,
            "tokens": 0,
            "seconds": round(time.perf_counter() - started, 3),
            "progress": 1.0,
        }
        row |= metrics
        if trainer.is_world_process_zero():
            append_row(trial.metrics_path, {**row, "time": time.time()})
            trial.set_state("finished")
    except Exception as error:
        trial.set_state("failed", f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
    upload(setting, BASE)


def _out_of_memory(experiment: Experiment) -> str:
    batch = experiment.train.per_device_train_batch_size
    return (
        f"out of memory: lower train.per_device_train_batch_size ({batch}), raise gradient_accumulation_steps instead, "
        "lower data.max_length or set train.activation_checkpointing: true."
    )
