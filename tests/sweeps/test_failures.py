"""What is lost when something dies, on a real cluster: the machine with and without a warning, the disk, the silent
trial.

Killed workers, hosts and drivers are in `test_sweep.py` and `test_packed.py`; W&B out of reach in
`run/test_tracking.py`; out of memory in `training/test_trial.py` and `pack/test_isolation.py`; two drivers on one run
in `run/test_directory.py`; a Ctrl-C in `cluster/test_interrupt.py`; another sweep in `cluster/test_fair_share.py`; a
budget in `run/test_cost.py`; a worker of two in `models/test_strategies.py`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

from ftlib.cluster.fair_share import Shares
from ftlib.cluster.nodes import place_of
from ftlib.config import Experiment, ScaleSection
from ftlib.files.atomic import write_text
from ftlib.files.json_files import read_json
from ftlib.run.context import Setting
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import PLACE
from ftlib.run.tracking import wandb_id
from ftlib.sweeps.conductor import Conductor
from ftlib.sweeps.sweep import _sweep_up
from tests.conftest import may_unshare, write_experiment
from tests.pack.conftest import assert_same_bits, left_behind
from tests.support.machines import Machines, machines, run_in, wait_until

INTERVAL = 40  # steps between two evaluations: far apart, so that a warning falls between them


@pytest.fixture(scope="module")
def nodes() -> Any:
    """Two machines for the tests of this file; each leaves two behind."""
    with machines(2) as made:
        yield made


def sweep(tree: dict[str, Any], tmp_path: Path, pack: int | str, epochs: int, **section: Any) -> Path:
    tree["train"].update(
        num_train_epochs=epochs, eval_strategy="steps", eval_steps=INTERVAL, logging_steps=1, learning_rate=1e-3
    )
    tree["adapter"]["lora_dropout"] = 0.1
    tree["sweep"] = {
        "space": {"adapter.r": [2, 4]},
        "search": {"type": "optuna", "storage": f"sqlite:///{tmp_path}/study.db", "sampler": "random"},
        "scheduler": {"type": "none"},
        "num_samples": 2,
        "baseline": False,
        "pack": pack,
        **section,
    }
    return write_experiment(tmp_path / "x.yaml", tree)


def step_of(trial: Trial) -> int:
    rows = trial.metrics()
    return int(rows[-1]["step"]) if rows else 0


@pytest.mark.matrix  # in `make test` the chaos drains a machine: test_chaos.py
@pytest.mark.parametrize(("pack", "epochs"), [(2, 20), ("off", 20)])
def test_a_drained_machine_costs_no_step(
    tree: dict[str, Any], tmp_path: Path, nodes: Machines, pack: int | str, epochs: int
) -> None:
    """The same points, left alone and drained: the same bits; the same W&B run; Optuna hears of two trials that
    ended."""
    import optuna

    tree["track"] = {"wandb": {"project": "tests", "mode": "offline"}, "tensorboard": False}
    process = nodes.start("sweep", sweep(tree, tmp_path, pack, epochs))
    run = run_in(tree["storage"], process)
    trial = run.trial("000")
    wait_until(lambda: 3 < step_of(trial) % INTERVAL < INTERVAL - 8, process, 180)
    (node,) = [machine for machine in nodes.nodes if machine.node_id == place_of(trial.path)]
    nodes.warn(node, 60)
    wait_until(lambda: any(event["event"] == "trial_preempted" for event in run.events()), process)
    wait_until(
        lambda: all(place_of(drained.path) != node.node_id for drained in run.trials() if drained.state == "running"),
        process,
    )
    nodes.kill(node)
    nodes.add()
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    events = run.events()
    (leaving,) = [event for event in events if event["event"] == "node_leaving"]
    assert 0 < leaving["seconds_left"] <= 60
    went_on = [event for event in events if event["event"] == "trial_continued"]
    assert (
        any(event["step"] % INTERVAL for event in went_on) or pack == "off"
    )  # not where it evaluates and saves anyway
    for event in went_on:
        assert event["repeats"] == 0  # the exact step
    preempted = [event for event in events if event["event"] == "trial_preempted"]
    assert {event["trial"] for event in preempted} == {event["trial"] for event in went_on}
    assert all(event["lost_s"] < 5 for event in preempted)
    for drained in run.trials():
        assert drained.state == "finished"
        assert [row["step"] for row in drained.metrics() if "loss" in row] == list(range(1, 8 * epochs + 1))
        folders = list((run.path / "wandb").glob(f"offline-run-*-{wandb_id(run, drained)}"))
        assert folders
    ids = {folder.name.rpartition("-")[2] for folder in (run.path / "wandb").glob("offline-run-*")}
    assert ids == {wandb_id(run, drained) for drained in [*run.trials(), run.trial("sweep")]}  # and the sweep's own
    study = optuna.load_study(study_name="colours", storage=f"sqlite:///{tmp_path}/study.db")
    assert [point.state.name for point in study.trials] == ["COMPLETE"] * 2

    alone = {**tree, "storage": str(tmp_path / "alone"), "track": {"wandb": None, "tensorboard": False}}
    alone["sweep"] = {**tree["sweep"], "search": {"type": "random"}, "space": {"adapter.r": [2, 4]}}
    alone["sweep"]["search"] = {"type": "grid"}
    alone["sweep"]["num_samples"] = 1
    process = nodes.start("sweep", write_experiment(tmp_path / "alone.yaml", alone))
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    (path,) = Path(alone["storage"]).iterdir()
    theirs = {lone.params["adapter.r"]: lone for lone in Run(path).trials()}
    for drained in run.trials():
        other = theirs[drained.params["adapter.r"]]
        if pack != "off":
            assert_same_bits(left_behind(drained), left_behind(other))
        else:
            ours = [row["eval_loss"] for row in drained.metrics() if "eval_loss" in row]
            assert ours == [row["eval_loss"] for row in other.metrics() if "eval_loss" in row]


def trains(run: Run, process: subprocess.Popen[str]) -> int:
    """The process in which trial 000 trains, once it does."""
    wait_until(lambda: step_of(run.trial("000")) > INTERVAL, process, 180)
    return int(read_json(run.trial("000").path / PLACE)["pid"])


@pytest.mark.matrix
@pytest.mark.parametrize("pack", [2, "off"])
def test_a_trial_that_falls_silent_is_started_again(
    tree: dict[str, Any], tmp_path: Path, nodes: Machines, pack: int | str
) -> None:
    tree["scale"] = {"report_timeout_s": 12}
    path = sweep(tree, tmp_path, pack, 40, max_concurrent_trials=1 if pack == "off" else 2)
    process = nodes.start("sweep", path)
    run = run_in(tree["storage"], process)
    os.kill(trains(run, process), signal.SIGSTOP)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    hung = [event for event in run.events() if event["event"] == "trial_hung"]
    assert hung
    assert hung[0]["silent_s"] >= 12
    assert max(event["lost_s"] for event in run.events() if event["event"] == "trial_recovered") >= 12
    assert [event for event in run.events() if event["event"] == "trial_recovered"]
    for trial in run.trials():
        assert trial.state == "finished", trial.status
        assert [row["step"] for row in trial.metrics() if "loss" in row] == list(range(1, 8 * 40 + 1))


def in_a_small_disk(tmp_path: Path, mib: int, script: str) -> subprocess.Popen[str]:
    """A shell in which `tmp_path/disk` is a disk of so many MiB that nobody else sees."""
    (tmp_path / "disk").mkdir()
    if not may_unshare("--mount"):
        pytest.skip("no namespace of its own can be had here")
    mount = f"mount -t tmpfs -o size={mib}m tmpfs {tmp_path}/disk"
    return subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"{mount} && {script}"],
        env={**os.environ, "FTLIB_STORAGE_PATIENCE_S": "4"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.matrix
@pytest.mark.parametrize("pack", [2, "off"])
def test_a_full_disk_ends_the_sweep_with_a_sentence_and_loses_nothing(
    tree: dict[str, Any], tmp_path: Path, pack: int | str
) -> None:
    """Filled once trial 000 has finished; freed, and resumed."""
    disk = tmp_path / "disk"
    tree["storage"] = str(disk)
    path = sweep(tree, tmp_path, pack, 40, max_concurrent_trials=1)
    command = f"{sys.executable} -m ftlib.cli"
    wait = f"until grep -qs trial_finished {disk}/*/events.jsonl; do sleep 0.1; done"
    process = in_a_small_disk(
        tmp_path,
        300,
        f"({wait}; cat {disk}/*/trials/000/metrics.jsonl > {tmp_path}/before; cat /dev/zero > {disk}/filler 2> "
        "/dev/null) & "
        f"{command} sweep {path} > {tmp_path}/first; echo status $? >> {tmp_path}/first; "
        f"rm {disk}/filler; {command} resume {disk}/colours > {tmp_path}/second; echo status $? >> {tmp_path}/second; "
        f"cp -r {disk}/colours* {tmp_path}/kept",
    )
    process.communicate(timeout=500)
    first, second = (tmp_path / "first").read_text(), (tmp_path / "second").read_text()
    assert "status 1" in first or "status 130" in first, first
    assert "Traceback" not in first
    assert "status 0" in second, second
    run = Run(tmp_path / "kept")
    assert [trial.state for trial in run.trials()] == ["finished"] * 2
    assert run.trial("000").metrics_path.read_text() == (tmp_path / "before").read_text()
    assert not [event for event in run.events() if event["event"] == "trial_failed"]
    shutil.rmtree(tmp_path / "kept")


# --- what the driver makes of it, without a cluster ---------------------------------------------------------------


class Lost:
    """Stands for Tune's trial 000, which has failed so many times."""

    def __init__(self, num_failures: int = 0) -> None:
        self.num_failures = num_failures

    def __str__(self) -> str:
        return "000"


@pytest.fixture
def conductor(tree: dict[str, Any], tmp_path: Path) -> Conductor:
    run = Run.create(tmp_path, "x", "", {})
    run.trial("000").path.mkdir()
    setting = Setting(run=str(run.path), data="", resolved=Experiment.parse(tree).to_dict())
    return Conductor(run, setting, None, Shares(run.name, ScaleSection()))


def test_a_crash_is_a_failure_and_a_lost_machine_is_none(conductor: Conductor) -> None:
    crash = RayActorError()
    assert conductor.lost_trials.lost(Lost(), crash) is crash  # which Tune counts
    (event,) = [record for record in conductor.run.events() if record["event"] == "trial_recovered"]
    assert event["failures"] == 1
    assert event["lost_s"] >= 0
    for _ in range(5):
        told: Any = conductor.lost_trials.lost(Lost(), RayActorError(error_msg="gone", preempted=True))
        assert told.preempted  # which it does not
        assert conductor.run.trial("000").state == "preempted"
    assert [record["event"] for record in conductor.run.events()].count("trial_preempted") == 5


def test_a_trial_that_crashes_again_and_again_is_failed(conductor: Conductor) -> None:
    conductor.callback.on_trial_error(0, [], Lost(4))
    trial = conductor.run.trial("000")
    assert trial.state == "failed"
    assert trial.status["reason"].startswith("its process died 4 times")


def test_what_killed_processes_left_half_written_goes(conductor: Conductor) -> None:
    run, trial = conductor.run, conductor.run.trial("000")
    for folder in ("checkpoint", ".staging", ".checkpoint.old", ".adapter.old"):
        write_text(trial.path / folder / "weights", "12345")
    _sweep_up(run)
    assert {entry.name for entry in trial.path.iterdir()} == {"checkpoint", ".adapter.old"}  # the only adapter there is
    (event,) = [record for record in run.events() if record["event"] == "orphans_removed"]
    assert event["bytes"] == 10
