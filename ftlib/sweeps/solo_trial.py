"""One trial as a Ray Train (v2) job inside a Ray Tune function. The driver imports this file too: torch stays inside.

A trial of one worker runs in its Tune actor itself (Ray Train's local mode), so an actor that has imported torch and
TRL once serves one trial after another. A trial of any other strategy is a nested TorchTrainer: its workers have a
placement group that Tune does not know, so each notes its own (`_note_place`), and `callback` gives it back.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path
from typing import Any

import ray.tune
import ray.util
from ray.util.placement_group import PlacementGroup

from ftlib.cluster import vault
from ftlib.cluster.nodes import note_place
from ftlib.errors import FtlibError, Preempted, StorageError
from ftlib.files.atomic import write_json, write_text
from ftlib.files.json_files import read_json
from ftlib.files.patience import given_up, storage_trouble
from ftlib.run.context import Setting
from ftlib.run.directory import ALL_ROWS, ENDED, Run, Trial
from ftlib.run.layout import ERROR, NESTED
from ftlib.sweeps.search import FAILED
from ftlib.sweeps.tune_private import without_cleaner

DONOR_FILE = "trial.json"  # all that a Tune checkpoint holds: whose checkpoint in the run directory it stands for


def run_tune_trial(config: dict[str, Any], setting: Setting) -> None:
    """The Tune trainable. `config` is a sampled point: dotted paths to values, ratios unresolved.

    A trial that cannot be trained *reports* why, once, and ends; only a crash (a killed worker, a lost node) is an
    exception that Tune answers by starting the trial again from its checkpoint.
    """
    vault.receive()
    trial_id = ray.tune.get_context().get_trial_name()
    trial = Run(Path(setting.run)).trial(trial_id)
    if trial.state in ENDED:
        ray.tune.report(reported_again(trial))
        return
    note_place(trial.path)
    trial.stays()
    experiment = setting.experiment()
    params = experiment.resolve_ratios(config)
    try:
        if experiment.scale.strategy == "single":
            _run_here(setting, trial_id, params, use_gpu=experiment.scale.use_gpu)
        else:
            _run_distributed(setting, trial_id, params)
    except Exception as error:
        if isinstance(error, Preempted | StorageError):
            raise preempted_error(str(error)) from None
        trouble = storage_trouble(error)
        if trouble is not None:
            raise preempted_error(given_up(trial.path, trouble)) from None
        reason = _reason(error)
        if reason is None:
            raise
        write_text(trial.path / ERROR, traceback.format_exc())
        ray.tune.report({FAILED: reason, "finished": False})


def reported_again(trial: Trial) -> dict[str, Any]:
    """The last report of a trial whose end Tune has forgotten: the driver was killed between our note of it and Tune's
    own."""
    rows = [row for row in trial.metrics() if ALL_ROWS not in row]
    row = rows[-1] if rows else {}
    failure = {FAILED: trial.status["reason"]} if trial.state == "failed" else {}
    return {**trial.measures, **row, **failure, "finished": trial.state == "finished"}


def preempted_error(why: str) -> Exception:
    """What Tune hears of a trial that has left its machine: an actor that was preempted counts as no failure."""
    error: Exception = ray.exceptions.RayActorError(error_msg=why, preempted=True)
    return error


def _run_here(setting: Setting, trial_id: str, params: dict[str, Any], use_gpu: bool) -> None:
    import ray.train
    from ray.train.torch import TorchTrainer

    from ftlib.training.trial import run_trial

    def train_loop() -> None:
        _use_cores()
        run_trial(setting, trial_id, params, _report_to_tune(setting, trial_id), donor=_donor())

    TorchTrainer(train_loop, scaling_config=ray.train.ScalingConfig(num_workers=0, use_gpu=use_gpu)).fit()


def _run_distributed(setting: Setting, trial_id: str, params: dict[str, Any]) -> None:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from ftlib.training.trial import run_trial

    scale = setting.experiment().scale
    resources = dict(scale.resources_per_worker)
    # Sharded weights are trained on GPUs and gathered on CPUs.
    backend = "cpu:gloo,cuda:nccl" if scale.use_gpu else "gloo"

    def train_loop() -> None:
        vault.receive()
        _note_place(Path(setting.run), trial_id)
        _use_cores()
        run_trial(setting, trial_id, params, ray.train.report)

    without_cleaner(TorchTrainer)(
        train_loop,
        torch_config=TorchConfig(backend=backend),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.num_workers, use_gpu=scale.use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=trial_id,
            storage_path=str(Path(setting.run) / NESTED),
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=scale.max_failures),
        ),
    ).fit()


def _note_place(run: Path, trial_id: str) -> None:
    if ray.train.get_context().get_world_rank() == 0:
        write_text(_place_file(run, trial_id), ray.util.get_current_placement_group().id.hex())


def _place_file(run: Path, trial_id: str) -> Path:
    return run / NESTED / trial_id / "placement_group"


def workers_place(run: Path, trial_id: str) -> PlacementGroup | None:
    """The placement group of a trial's workers, where it has had some."""
    file = _place_file(run, trial_id)
    return PlacementGroup(ray.PlacementGroupID(bytes.fromhex(file.read_text()))) if file.exists() else None


def _use_cores() -> None:
    """As many threads as the cores that Ray gave us: several trials on one machine must not fight for all of them."""
    import torch

    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(assigned)))


def _report_to_tune(setting: Setting, trial_id: str) -> Any:
    """Reports to Tune; for population-based training with a checkpoint that says whose weights these are."""

    def report(metrics: dict[str, Any]) -> None:
        if not setting.copies_weights:
            ray.tune.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / DONOR_FILE, {"trial": trial_id})
            ray.tune.report(metrics, checkpoint=ray.tune.Checkpoint.from_directory(folder))

    return report


def _donor() -> str | None:
    checkpoint = ray.tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        donor: str = read_json(Path(os.fspath(folder)) / DONOR_FILE)["trial"]
    return donor


def _reason(error: Exception) -> str | None:
    """Why a trial cannot be trained, as a sentence; None for a crash, which a new start may mend."""
    from ray.train.v2.api.exceptions import WorkerGroupError

    if isinstance(error, WorkerGroupError):
        errors = list(error.worker_failures.values())
        known = [fault for fault in errors if not isinstance(fault, ray.exceptions.RayError)]
        known.sort(key=lambda fault: not isinstance(fault, FtlibError))  # one says why, the others only that it is gone
        return _reason(known[0]) if known else None
    if isinstance(error, ray.exceptions.RayTaskError):
        return _reason(error.cause) if isinstance(error.cause, Exception) else str(error.cause)
    if isinstance(error, ray.exceptions.RayError):
        return None
    if isinstance(error, FtlibError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
