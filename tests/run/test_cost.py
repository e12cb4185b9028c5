"""What a run has cost, from its events alone; the Pareto points of its leaderboard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ftlib.cluster.fair_share import Shares
from ftlib.config import Experiment, ScaleSection
from ftlib.errors import ConfigError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import append_row
from ftlib.run.context import Setting
from ftlib.run.cost import Spent, expected, spent
from ftlib.run.directory import Run
from ftlib.run.leaderboard import leaderboard
from ftlib.run.leaderboard_text import to_csv
from ftlib.sweeps.conductor import Conductor
from tests.conftest import ftlib, write_experiment

PRICED = ScaleSection(price_per_hour=3600.0)  # one a second


def run_of(tmp_path: Path, *events: dict[str, Any]) -> Run:
    run = Run.create(
        tmp_path, "x", "", {"experiment": {"scale": PRICED.model_dump()}, "objective": ["eval_loss", "min"]}
    )
    (run.path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return run


def at(time: float, event: str, **details: Any) -> dict[str, Any]:
    return {"time": time, "event": event, **details}


def test_the_trials_of_a_host_share_its_time(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        at(0, "started"),
        at(10, "host_opened", host=1, age_s=10),  # which started with the sweep
        at(10, "trial_started", trial="000", host=1),
        at(20, "trial_started", trial="001", host=1),
        at(40, "trial_finished", trial="000"),
        at(50, "trial_preempted", trial="001"),
        at(50, "host_lost", host=1),
        at(60, "host_opened", host=2, age_s=5),
        at(60, "trial_started", trial="001", host=2),
        at(70, "trial_finished", trial="001"),
        at(75, "host_closed", host=2),
        at(80, "ended"),
    )
    found = spent(run)
    assert found.worker_seconds == 50 + 20
    assert found.by_trial == {"000": 10 + 10, "001": 10 + 10 + 10}
    assert found.hours == pytest.approx(80 / 3600)
    assert found.cost(PRICED) == pytest.approx(70)
    assert found.cost_of("001", PRICED) == pytest.approx(30)
    assert found.cost(ScaleSection()) is None


def test_a_solo_trial_has_its_workers_and_nothing_runs_between_two_sessions(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        at(0, "started"),
        at(0, "trial_started", trial="000"),
        at(10, "trial_recovered", trial="000"),
        at(15, "trial_started", trial="000"),
        at(20, "node_leaving"),  # the last that was heard of this driver
        at(1000, "resumed"),
        at(1000, "trial_started", trial="000"),
        at(1030, "trial_finished", trial="000"),
        at(1030, "ended"),
    )
    found = spent(run, workers=2)
    assert found.worker_seconds == 2 * (10 + 5 + 30)
    assert found.by_trial["000"] == found.worker_seconds
    assert found.hours == pytest.approx(50 / 3600)


def test_the_pareto_points_are_cheaper_than_all_that_is_better(tmp_path: Path) -> None:
    events = [at(0, "started")]
    for name, seconds in (("000", 10), ("001", 5), ("002", 7), ("003", 1)):
        events += [at(0, "trial_started", trial=name), at(seconds, "trial_finished", trial=name)]
    run = run_of(tmp_path, *sorted(events, key=lambda event: event["time"]))
    for name, loss in (("000", 1.0), ("001", 2.0), ("002", 3.0), ("003", 4.0)):
        trial = run.trial(name)
        trial.path.mkdir()
        append_row(trial.metrics_path, {"step": 1, "tokens": 1, "seconds": 1.0, "eval_loss": loss})
        write_json(trial.path / "status.json", {"state": "finished"})
    board = leaderboard(run)
    assert [(row.trial, row.pareto) for row in board.rows] == [
        ("000", True), ("001", True), ("002", False), ("003", True)
    ]  # fmt: skip
    assert [row.cost for row in board.rows] == pytest.approx([10, 5, 7, 1])
    assert "cost,pareto" in to_csv(board).splitlines()[0]


def test_a_price_is_of_a_worker_or_of_its_resources(tree: dict[str, Any]) -> None:
    scale = {"resources_per_worker": {"CPU": 4, "GPU": 1}}
    assert ScaleSection(**scale, price_per_hour=1.5).worker_price == 1.5
    assert ScaleSection(**scale, price_per_hour={"GPU": 1.0, "CPU": 0.05}).worker_price == pytest.approx(1.2)
    tree["budget"] = {"max_cost": 5}
    with pytest.raises(ConfigError, match=r"budget.max_cost needs a price: set scale.price_per_hour"):
        Experiment.parse(tree)


def test_what_it_will_cost_is_judged_by_the_last_run_of_its_name(tree: dict[str, Any], tmp_path: Path) -> None:
    tree.update(scale={"price_per_hour": 7200.0}, name="x", storage=str(tmp_path / "runs"))
    tree["sweep"] = {"space": {"train.learning_rate": {"min": 1e-3, "max": 1e-2}}, "num_samples": 3}
    experiment = Experiment.parse(tree)
    assert "a first run tells" in str(expected(experiment, 500))
    run = run_of(tmp_path / "runs", at(0, "started"), at(0, "trial_started", trial="000"), at(10, "ended"))
    run.trial("000").path.mkdir()
    append_row(run.trial("000").metrics_path, {"step": 1, "tokens": 1000})
    assert str(expected(experiment, 500)).startswith("at most 30 for 0.0042 worker-hours, as fast as x-")


@pytest.mark.parametrize(
    ("budget", "over"),
    [
        ({"max_hours": 3}, None),
        ({"max_hours": 2}, "budget.max_hours: 2 h are over"),
        ({"max_hours": 3, "max_cost": 7200}, "budget.max_cost: 7200 is spent"),
        ({"max_hours": 3, "max_cost": 9000}, None),
    ],
)
def test_a_budget_is_of_hours_or_of_money(
    tree: dict[str, Any], tmp_path: Path, budget: dict[str, float], over: str | None
) -> None:
    """Two hours of one worker, in two sessions with a day between them."""
    now, hour, day = time.time(), 3600, 86400
    run = run_of(
        tmp_path,
        at(now - day - hour, "started"),
        at(now - day - hour, "trial_started", trial="000"),
        at(now - day, "ended"),
        at(now - hour - 1, "resumed"),
        at(now - hour - 1, "trial_started", trial="000"),
    )
    tree |= {"scale": {"price_per_hour": 3600.0}, "budget": budget}
    setting = Setting(run=str(run.path), data="", resolved=Experiment.parse(tree).to_dict())
    conductor = Conductor(run, setting, None, Shares(run.name, ScaleSection()))
    assert conductor.budget._which() == over


@pytest.mark.usefixtures("ray_local")
def test_a_sweep_whose_budget_is_spent_ends_with_its_leaderboard(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing counts before the first trial has learned something, however long that takes."""

    def counted(run: Run, *about: Any, **more: Any) -> Spent:
        learned = any(trial.checkpoint is not None for trial in run.trials()[:1])
        return spent(run, *about, **more) if learned else Spent()

    monkeypatch.setattr("ftlib.sweeps.budget.spent", counted)
    monkeypatch.setattr("ftlib.sweeps.budget.COUNT_SECONDS", 0.2)
    tree["train"].update(num_train_epochs=100000, eval_strategy="steps", eval_steps=2)
    tree["scale"] = {"price_per_hour": 3600.0}
    tree["budget"] = {"max_cost": 2}
    space = {"train.learning_rate": {"min": 1e-3, "max": 1e-2, "log": True}}
    tree["sweep"] = {"space": space, "num_samples": 9, "scheduler": {"type": "none"}, "pack": 2, "baseline": False}
    status, output = ftlib("sweep", write_experiment(tmp_path / "x.yaml", tree))
    assert status == 0, output
    assert "the sweep ended early: budget.max_cost: 2 is spent" in output
    assert "of it the winner's" in output
    (path,) = Path(tree["storage"]).iterdir()
    assert "budget_over" in [event["event"] for event in Run(path).events()]
    trials = Run(path).trials()
    assert {trial.state for trial in trials} == {"stopped"}
    assert "budget.max_cost" in trials[0].status["reason"]
    assert trials[0].checkpoint is not None
