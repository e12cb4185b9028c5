"""Trains a trial in as many processes as it has workers, without Ray. Libraries are imported once, in a fork server."""

import json
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import pytest
import torch
import trl.trainer.dpo_trainer
import trl.trainer.sft_trainer  # noqa: F401

from ftlib.data import prepare
from ftlib.models import strategies
from ftlib.models.base import load_tokenizer
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from ftlib.training.trial import run_trial

if find_spec("deepspeed"):
    import deepspeed  # noqa: F401

MP = multiprocessing.get_context("forkserver")
MP.set_forkserver_preload(["tests.support.ranks"])
NOTES = "rank-{}.json"  # in the run directory: what a rank held, or why it failed


def setting(experiment: Any, folder: Path) -> Setting:
    data = prepare(experiment.data, experiment.method.rows, load_tokenizer(experiment.model))
    run = Run.create(folder, "run", "", {"experiment": experiment.to_dict()})
    run.trial("000").path.mkdir()
    return Setting(run=str(run.path), data=str(data.path), resolved=experiment.to_dict())


def train(setting: Setting, stop_at: int = 0, before: Callable[[], None] | None = None) -> list[dict[str, Any]]:
    """Trains the setting's trial; returns a note of each rank. `stop_at` ends it at that report, as Tune does.

    `before` runs in each rank first (a module's function): how a test breaks a strategy.
    """
    scale = setting.experiment().scale
    if scale.strategy == "deepspeed" and not find_spec("deepspeed"):
        pytest.skip("there is no deepspeed")
    workers = scale.num_workers
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        MP.Process(target=_rank, args=(rank, workers, port, setting, stop_at, before)) for rank in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [json.loads((Path(setting.run) / NOTES.format(rank)).read_text()) for rank in range(workers)]


def _rank(
    rank: int, workers: int, port: int, setting: Setting, stop_at: int, before: Callable[[], None] | None
) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(workers), LOCAL_WORLD_SIZE=str(workers))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.stdout = sys.stderr = open(Path(setting.run) / f"rank-{rank}.log", "a")  # noqa: SIM115
    if setting.experiment().scale.strategy != "single":
        torch.distributed.init_process_group("gloo")
    note = _watch()
    reports: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        reports.append(row)
        if len(reports) == stop_at:
            raise SystemExit

    try:
        if before:
            before()
        run_trial(setting, "000", {}, report)
    except SystemExit:
        note["stopped"] = True
    except Exception as error:
        traceback.print_exc()
        note["error"] = f"{type(error).__name__}: {error}"
    (Path(setting.run) / NOTES.format(rank)).write_text(json.dumps(note))
    sys.stderr.flush()
    os._exit(0)  # the other rank may be gone: nobody waits for its group


def _watch() -> dict[str, Any]:
    """What this rank holds of the model, noted when the strategy is proved: {"held": values, "whole": values}."""
    held: dict[str, Any] = {"error": None}
    prove = strategies.Single.prove

    def watch(self: Any, trainer: Any) -> None:
        prove(self, trainer)
        parts = list(trainer.model.parameters())
        held["held"] = sum(_local(part).numel() for part in parts)
        held["whole"] = sum(getattr(part, "ds_numel", part.numel()) for part in parts)

    strategies.Single.prove = watch  # type: ignore[method-assign]
    return held


def _local(part: Any) -> Any:
    return part.to_local() if hasattr(part, "to_local") else getattr(part, "ds_tensor", part)
