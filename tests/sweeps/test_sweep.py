"""Whole sweeps through the command line, on a real Ray, with the misfortunes that real sweeps meet."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from ftlib.files.json_files import read_json
from ftlib.run.directory import ENDED, Run, Trial
from ftlib.run.layout import PLACE
from tests.conftest import foreign, ftlib, only_run, rows, write_experiment, write_jsonl

pytestmark = pytest.mark.usefixtures("ray_local")

LEARNING_RATES = {"train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True}}


def sweep(
    tree: dict[str, Any], tmp_path: Path, space: dict[str, Any] | None = None, **section: Any
) -> tuple[int, str, Run]:
    tree = {**tree, "sweep": {"space": space or LEARNING_RATES, "baseline": False, **section}}
    status, output = ftlib("sweep", write_experiment(tmp_path / "x.yaml", tree))
    return status, output, only_run(tree["storage"])


def test_a_sweep_ends_with_a_leaderboard_and_the_promote_command(swept: tuple[Run, str]) -> None:
    run, output = swept
    assert [trial.state for trial in run.trials()] == ["finished"] * 4
    assert [trial.id for trial in run.trials()] == ["000", "001", "002", "003"]
    header, base, best, *_ = (run.path / "leaderboard.csv").read_text().splitlines()
    assert header.startswith(
        "rank,trial,state,eval_loss,gain_percent,adapter.r,adapter.lora_alpha,train.learning_rate,"
    )
    assert base.startswith("0,base,finished,")
    assert best.startswith("1,")
    assert f"ftlib promote {run.path} {best.split(',')[1]} --as swept" in output
    assert "untuned base" in output
    assert "vs base: how much better than the base" in output
    for trial in run.trials():
        assert trial.params["adapter.lora_alpha"] / trial.params["adapter.r"] in (1, 2)
        assert trial.manifest["experiment"]["adapter"]["r"] == trial.params["adapter.r"]
    assert run.resolved["data"]["train_rows"] == 64
    assert run.resolved["versions"]["torch"]


def test_the_live_lines_are_readable_without_a_terminal(swept: tuple[Run, str]) -> None:
    _, output = swept
    assert "\x1b[" not in output
    assert "4/4 trials done · 4 finished · best eval_loss" in output
    assert "Traceback" not in output
    assert "Warning" not in output


def test_a_trial_that_fails_is_told_and_the_sweep_goes_on(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"]["max_grad_norm"] = 0
    status, output, run = sweep(
        tree, tmp_path, {"train.learning_rate": [1e30, 1e-2]}, search={"type": "grid"}, scheduler={"type": "none"}
    )
    assert status == 0
    assert sorted(trial.state for trial in run.trials()) == ["failed", "finished"]
    assert "train.learning_rate 1e+30 is too high" in output
    failed = next(trial for trial in run.trials() if trial.state == "failed")
    assert "became" in failed.status["reason"]
    assert (failed.path / "error.txt").exists()


def test_when_all_fail_the_exit_status_says_so(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(max_grad_norm=0)
    space = {"train.learning_rate": [1e30, 1e31]}
    status, output, run = sweep(tree, tmp_path, space, search={"type": "grid"}, scheduler={"type": "none"})
    assert status == 1
    assert "all 2 trials failed" in output
    assert "Traceback" not in output
    status, output = ftlib("promote", run.path, "--as", "x")
    assert status == 2


def test_pbt_copies_the_better_trials_weights(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(num_train_epochs=3, lr_scheduler_type="constant")
    scheduler = {"type": "pbt", "checks": 2, "quantile_fraction": 0.5, "resample_probability": 0.0, "synch": True}
    space = {"train.learning_rate": {"min": 1e-6, "max": 5e-2, "log": True}}
    status, output, run = sweep(
        tree, tmp_path, space, search={"type": "random"}, scheduler=scheduler, num_samples=2, pack="off"
    )
    assert status == 0, output
    started = [event["trial"] for event in run.events() if event["event"] == "trial_started"]
    assert len(started) > 2  # an exploit starts a trial again
    losses = [[row["eval_loss"] for row in trial.evaluations("eval_loss")] for trial in run.trials()]
    gaps = [abs(one - other) for one, other in zip(*losses, strict=True)]
    assert gaps[0] > 0.02  # at the first check one is ahead
    assert gaps[-1] < gaps[0] / 2  # the other has its weights in the end
    rates = [trial.params["train.learning_rate"] for trial in run.trials()]
    assert min(rates) / max(rates) in (pytest.approx(0.8), pytest.approx(1 / 1.2))  # the donor's rate, multiplied


def test_a_killed_worker_costs_no_trial(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(num_train_epochs=10, eval_strategy="steps", eval_steps=8)
    with one_killed(tree["storage"]) as killed:
        status, output, run = sweep(tree, tmp_path, num_samples=1, scheduler={"type": "none"}, pack="off")
    assert killed, output
    assert status == 0, output
    assert [trial.state for trial in run.trials()] == ["finished"]
    assert [event["event"] for event in run.events()].count("trial_started") == 2
    steps = [row["step"] for row in run.trials()[0].metrics() if "loss" in row]
    assert steps == sorted(set(steps))  # no step is there twice


@contextmanager
def one_killed(storage: Any) -> Iterator[list[int]]:
    """Within, the process of the first trial that has a checkpoint is killed; gives its number, once it is."""
    killed, over = list[int](), threading.Event()

    def kill_one() -> None:
        while not killed and not over.wait(0.05):
            for checkpoint in list(Path(storage).glob("*/trials/*/checkpoint"))[:1]:
                place = read_json(checkpoint.parent / PLACE)
                if place is not None:
                    os.kill(place["pid"], signal.SIGKILL)
                    killed.append(place["pid"])

    thread = threading.Thread(target=kill_one)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def start(tree: dict[str, Any], tmp_path: Path, **section: Any) -> subprocess.Popen[str]:
    """A sweep in a process (and a Ray) of its own; one trial at a time and no base, since each at once costs a process
    its imports."""
    usual = {"space": LEARNING_RATES, "scheduler": {"type": "none"}, "pack": "off", "max_concurrent_trials": 1,
             "baseline": False}  # fmt: skip
    tree = {**tree, "sweep": {**usual, **section}}
    path = write_experiment(tmp_path / "x.yaml", tree)
    return subprocess.Popen(
        [sys.executable, "-m", "ftlib.cli", "sweep", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def has_ended(trial: Trial) -> bool:
    return trial.state in ENDED


def wait_for(storage: str, count: int, process: subprocess.Popen[str], of: Callable[[Trial], bool] = has_ended) -> Run:
    """The run, once so many of its trials are as `of` says."""
    seconds = 240
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
        runs = list(Path(storage).glob("*/resolved.json"))
        if runs and sum(of(trial) for trial in Run(runs[0].parent).trials()) >= count:
            return Run(runs[0].parent)
    raise AssertionError(
        f"not {count} trials came so far: {process.communicate(timeout=5)[0] if process.poll() is not None else ''}"
    )


def test_kill_9_and_resume_repeats_nothing_that_is_finished(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"]["num_train_epochs"] = 3
    process = start(tree, tmp_path, num_samples=4, search={"type": "optuna", "n_startup_trials": 2})
    run = wait_for(tree["storage"], 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    finished = {trial.id: trial.metrics_path.read_text() for trial in run.trials() if trial.state == "finished"}
    assert len(finished) < 4

    status, output = ftlib("resume", run.path)
    assert status == 0, output
    assert [trial.state for trial in run.trials()] == ["finished"] * 4
    assert [trial.id for trial in run.trials()] == [f"{number:03d}" for number in range(4)]
    for name, metrics in finished.items():
        assert run.trial(name).metrics_path.read_text() == metrics
    events = run.events()
    resumed = [event["event"] for event in events].index("resumed")
    assert not finished.keys() & {event.get("trial") for event in events[resumed:] if event["event"] == "trial_started"}
    assert len((run.path / "leaderboard.csv").read_text().splitlines()) == 1 + 4

    status, output = ftlib("sweep", run.path, "--add-trials", 1)  # to a run that has ended
    assert status == 0, output
    assert [trial.state for trial in run.trials()] == ["finished"] * 5


def test_sigterm_is_a_ctrl_c_and_nothing_is_trained_twice(
    tree: dict[str, Any], tmp_path: Path, ftlib_home: Path
) -> None:
    """A Ctrl-C in a pack: tests/sweeps/test_packed.py."""
    tree["train"].update(logging_steps=8)
    tree["track"] = {"wandb": {"mode": "offline"}}
    data = write_jsonl(tmp_path / "colours.jsonl", rows(81))
    tree["data"]["train"] = str(data)
    process = start(tree, tmp_path, space={"train.num_train_epochs": [1, 24]}, search={"type": "grid"})
    run = wait_for(tree["storage"], 1, process)
    while run.trials()[-1].id != "001" or not run.trials()[-1].metrics():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert output.splitlines()[-1].strip() == f"ftlib resume {run.path}"
    assert foreign(output) == []
    assert [trial.state for trial in run.trials()] == ["finished", "preempted"]
    assert [event["reason"] for event in run.events() if event["event"] == "trial_preempted"] == ["interrupted"]
    assert "interrupted" in [event["event"] for event in run.events()]

    data.unlink()
    shutil.rmtree(ftlib_home / "cache" / "data" / run.resolved["data"]["hash"])
    for command in (("resume", run.path), ("sweep", run.path, "--add-trials", 1)):
        status, output = ftlib(*command)
        assert status == 2, output
        assert "the data of the run is not there any more (data.train: no such file" in output
    write_jsonl(data, rows(40))
    status, output = ftlib("resume", run.path)
    assert status == 2, output
    assert "the data gives other rows than when the run began, and" in output
    write_jsonl(data, rows(81))
    status, output = ftlib("resume", run.path)
    assert status == 0, output
    assert [trial.state for trial in run.trials()] == ["finished"] * 2
    continued = [event for event in run.events() if event["event"] == "trial_continued"]
    assert [(event["trial"], event["repeats"]) for event in continued] == [("001", 0)]
    steps = [row["step"] for row in run.trial("001").metrics() if "loss" in row]
    assert steps == sorted(set(steps))


@pytest.mark.matrix  # without Ray, tests/models/test_strategies.py; on Ray, two workers that are killed or stopped
def test_two_workers_compute_what_one_does(tree: dict[str, Any], tmp_path: Path) -> None:
    losses = {}
    for strategy, workers in (("single", 1), ("ddp", 2)):
        tree["train"]["per_device_train_batch_size"] = 8 // workers
        tree["scale"] = {"strategy": strategy, "num_workers": workers, "engine": "trainer"}
        tree["storage"] = str(tmp_path / strategy)
        status, output = ftlib("train", write_experiment(tmp_path / "x.yaml", tree))
        assert status == 0, output
        run = only_run(tree["storage"])
        losses[strategy] = [row["loss"] for row in run.trials()[0].metrics() if "loss" in row]
        assert run.trials()[0].weights is not None
    assert losses["ddp"] == pytest.approx(losses["single"], rel=1e-4)


@pytest.mark.matrix  # in `make test` a budget ends one: tests/run/test_cost.py
def test_a_sweep_whose_time_is_over_ends_with_its_leaderboard(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(num_train_epochs=100000, eval_strategy="steps", eval_steps=8)
    status, output, run = sweep(tree, tmp_path, num_samples=4, scheduler={"type": "none"}, time_budget_s=25, pack=1)
    assert status == 0, output
    assert "promote the winner" in output
    states = [trial.state for trial in run.trials()]
    assert set(states) == {"stopped"}
    assert len(states) < 4


def test_what_fits_nowhere_is_said_before_it_waits_for_ever(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["scale"] = {"resources_per_worker": {"CPU": 64}}
    status, output = ftlib("train", write_experiment(tmp_path / "x.yaml", tree))
    assert status == 2
    assert "a trial needs 64 CPU, but this machine has 2" in output
    assert not Path(tree["storage"]).exists()


def test_a_database_study_keeps_every_trial_that_the_median_stops_or_not(tree: dict[str, Any], tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path}/study.db"
    search = {"type": "optuna", "storage": url}
    status, output, run = sweep(tree, tmp_path, num_samples=3, search=search, scheduler={"type": "median"})
    assert status == 0, output
    assert {trial.state for trial in run.trials()} <= {"finished", "stopped"}
    study = optuna.load_study(study_name="colours", storage=url)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3


def test_events_are_one_json_a_line(swept: tuple[Run, str]) -> None:
    run, _ = swept
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[:2] == ["created", "started"]
    assert kinds[-1] == "ended"
    assert kinds.count("trial_finished") == 4


def test_workers_compete_as_equals(ray_local: None) -> None:
    """At Ray's own niceness of 15 one busy neighbour starves them."""

    @ray.remote(num_cpus=0)
    def niceness() -> int:
        return os.nice(0)

    assert ray.get(niceness.remote()) == os.nice(0)
