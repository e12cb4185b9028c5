"""A running sweep is steered from another terminal; what was done stands in its events and in its leaderboard."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.files.atomic import write_json, write_text
from ftlib.run.commands import Command, send, waiting
from ftlib.run.directory import Run
from ftlib.run.layout import POINT
from ftlib.sweeps.steering import Steering
from tests.conftest import ftlib, write_experiment
from tests.support.machines import Machines, machines, run_in, wait_until

EPOCH = 8  # steps


@pytest.fixture(scope="module")
def nodes() -> Iterator[Machines]:
    with machines(2) as made:
        yield made


def said(*arguments: Any) -> str:
    status, output = ftlib(*arguments)
    assert status == 0, output
    return output


def evaluated(run: Run, name: str, times: int = 1) -> bool:
    return len(run.trial(name).evaluations("eval_loss")) >= times


@pytest.mark.parametrize("pack", [2, pytest.param("off", marks=pytest.mark.matrix)])
def test_a_live_sweep_is_steered(tree: dict[str, Any], tmp_path: Path, nodes: Machines, pack: int | str) -> None:
    epochs = 20 if pack == 2 else 10
    tree["train"].update(num_train_epochs=epochs, eval_strategy="steps", eval_steps=EPOCH, logging_steps=1)
    section = {"num_samples": 3, "max_concurrent_trials": 2, "pack": pack, "baseline": False}
    space = {"train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True}}
    tree["sweep"] = {"space": space, "scheduler": {"type": "none"}, **section}
    process = nodes.start("sweep", write_experiment(tmp_path / "x.yaml", tree))
    try:
        run = run_in(tree["storage"], process)
        wait_until(lambda: evaluated(run, "000") and evaluated(run, "001"), process)

        assert "is being stopped" in said("trial", "stop", run.path, "001")
        wait_until(lambda: run.trial("001").state == "stopped", process)
        stood = run.trial("001").metrics()[-1]["step"]
        assert "by hand" in run.trial("001").status["reason"]

        assert "from where it stands" in said("trial", "clone", run.path, "000", "train.learning_rate=0.005")
        assert "trained to its end, with" in said(
            "trial", "boost", run.path, "000", f"train.num_train_epochs={epochs + 2}"
        )
        assert "the scheduler stops it no more" in said("trial", "resume", run.path, "001")
        assert "1 trials more" in said("sweep", run.path, "--add-trials", 1)

        status, output = ftlib("trial", "stop", run.path, "017")
        assert (status, "no trial '017'" in output) == (2, True)
        status, output = ftlib("trial", "boost", run.path, "000", "train.learning_rate=1")
        assert (status, "a boost makes a trial longer" in output) == (2, True)
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert [trial.state for trial in run.trials()] == ["finished"] * 5
    for trial in run.trials():
        steps = [row["step"] for row in trial.metrics() if "loss" in row]
        last = EPOCH * (epochs + 2 if trial.id == "000" else epochs)
        assert steps == list(range(steps[0], last + 1)), trial.id
    events = run.events()
    went_on = [event for event in events if event["event"] == "trial_continued" and event["trial"] in ("000", "001")]
    assert went_on
    assert all(event["repeats"] == 0 for event in went_on)
    assert [event["step"] for event in went_on if event["trial"] == "001"] == [stood]
    assert not [event for event in events if event["event"] == "trial_preempted"]
    with (run.path / "leaderboard.csv").open() as file:
        rows = {row["trial"]: row for row in csv.DictReader(file)}
    (clone,) = [row for row in rows.values() if row["cloned_from"]]
    assert (clone["cloned_from"], clone["changed"]) == ("000", "train.learning_rate=0.005")
    assert clone["train.learning_rate"] == "0.005"
    assert rows["000"]["changed"] == f"train.num_train_epochs={epochs + 2}"


def test_an_ended_run_takes_no_command_and_more_trials(swept: tuple[Run, str]) -> None:
    run, _ = swept
    status, output = ftlib("trial", "stop", run.path, "000")
    assert status == 2
    assert "is not running" in output
    assert waiting(run) == []


def test_a_command_file_is_whole_or_not_there(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "x", "", {})
    command = Command("clone", "003", {"train.learning_rate": 1e-3})
    name = send(run, command)
    (run.path / "commands" / ".half.json.1.abc").write_text("{")
    assert waiting(run) == [(name, command)]


@pytest.mark.parametrize(
    ("change", "warm"),
    [({"train.learning_rate": 2e-3}, True), ({"adapter.r": 2}, False)],
    ids=["the same shape", "another"],
)
def test_a_clone_of_another_shape_begins_anew(
    tree: dict[str, Any], tmp_path: Path, change: dict[str, Any], warm: bool
) -> None:
    tree["sweep"] = {"space": {"train.learning_rate": [1e-3]}, "search": {"type": "grid"}}
    run = Run.create(tmp_path, "x", "", {})
    enrolled: list[Any] = []
    donor = run.new_trial()
    write_json(donor.path / POINT, {"train.learning_rate": 1e-3})
    write_text(donor.path / "checkpoint" / "weights", "12345")
    setting = SimpleNamespace(experiment=lambda: Experiment.parse(tree))
    conductor = SimpleNamespace(run=run, setting=setting, hosts=None)
    controller = SimpleNamespace(conductor=conductor, enroll=lambda name, point: enrolled.append((name, point)))
    said = Steering(controller)._clone(Command("clone", donor.id, change))
    assert ("from where it stands" if warm else "from the beginning") in said
    assert (run.trial("001").checkpoint is not None) == warm
    assert enrolled == [("001", {"train.learning_rate": 1e-3, **change})]
