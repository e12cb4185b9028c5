"""Sweeps on a cluster whose machines are killed, drained and added at random: nothing is lost, nothing is repeated."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ftlib.cluster.nodes import place_of
from ftlib.run.directory import Run
from tests.conftest import write_experiment
from tests.support.machines import Machines, machines, run_in, wait_until

INTERVAL = 8  # steps between two checkpoints
WARNING = 3.0  # seconds between the warning and the end of a machine


def disturb(
    nodes: Machines, run: Run, process: subprocess.Popen[str], rounds: int, draw: random.Random
) -> Counter[str]:
    """In each round, once a trial trains: a machine is killed, or drained and killed, or added; one is always left or
    comes."""
    done: Counter[str] = Counter()
    for _ in range(rounds):
        wait_for_training(run, process)
        time.sleep(draw.uniform(0.0, 1.5))
        act = draw.choice(["kill", "drain", "add"] if len(nodes.nodes) < 3 else ["kill", "drain"])
        done[act] += 1
        if act == "add":
            nodes.add()
            continue
        node = draw.choice(inhabited(nodes, run) or nodes.nodes)
        if act == "drain":
            nodes.warn(node, WARNING)
            time.sleep(WARNING)
        nodes.kill(node)
        if len(nodes.nodes) < 2:
            nodes.add()
    return done


def inhabited(nodes: Machines, run: Run) -> list[Any]:
    """The machines on which trials run."""
    places = {place_of(trial.path) for trial in run.trials() if trial.state == "running"}
    return [node for node in nodes.nodes if node.node_id in places]


def wait_for_training(run: Run, process: subprocess.Popen[str]) -> None:
    """Until a trial has trained since now."""
    since = time.time()

    def trained() -> bool:
        rows = [trial.metrics_path for trial in run.trials()]
        return any(path.exists() and path.stat().st_mtime > since for path in rows)

    wait_until(trained, process, 180)


def swept(tree: dict[str, Any], tmp_path: Path, rounds: int, seed: int, **section: Any) -> tuple[Run, Counter[str]]:
    tree["train"].update(eval_strategy="steps", eval_steps=INTERVAL, logging_steps=1)
    tree["sweep"] = {
        "space": {"adapter.r": [2, 4], "train.learning_rate": {"min": 1e-3, "max": 1e-2, "log": True}},
        "search": {"type": "optuna", "storage": f"sqlite:///{tmp_path}/study.db", "n_startup_trials": 100},
        "scheduler": {"type": "none"},
        "baseline": False,
        **section,
    }
    with machines(2) as nodes:
        process = nodes.start("sweep", write_experiment(tmp_path / "x.yaml", tree))
        try:
            run = run_in(tree["storage"], process)
            done = disturb(nodes, run, process, rounds, random.Random(seed))
            output, _ = process.communicate(timeout=480)
        finally:
            process.kill()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    return run, done


def assert_whole(run: Run, trials: int, steps: int, study: Path) -> None:
    """Every trial finished once, with each of its steps in its record once; at most an interval was done twice a
    loss."""
    import optuna

    events = run.events()
    assert [trial.id for trial in run.trials()] == [f"{number:03d}" for number in range(trials)]
    for trial in run.trials():
        assert trial.state == "finished", trial.status
        assert [row["step"] for row in trial.metrics() if "loss" in row] == list(range(1, steps + 1))
        assert trial.weights is not None
        mine = [event["event"] for event in events if event.get("trial") == trial.id]
        assert mine.count("trial_finished") == 1
        assert mine[-1] == "trial_finished"  # and was never begun again
        assert mine.count("trial_started") == 1 + mine.count("trial_preempted") + mine.count("trial_recovered")
        assert not {path.name for path in trial.path.iterdir()} & {".staging", "leave.json"}
    for event in events:
        if event["event"] == "trial_continued":
            assert event["repeats"] <= INTERVAL
        if event["event"] in ("trial_preempted", "trial_recovered"):
            assert event["lost_s"] >= 0
    found = optuna.load_study(study_name="colours", storage=f"sqlite:///{study}")
    assert Counter(trial.state.name for trial in found.trials) == {"COMPLETE": trials}


def report(run: Run, done: Counter[str]) -> None:
    """Figures for docs/log.md: `pytest -s` shows them."""
    events = run.events()
    kinds = Counter(event["event"] for event in events)
    repeats = [event["repeats"] for event in events if event["event"] == "trial_continued"]
    lost = [event["lost_s"] for event in events if "lost_s" in event]
    waited = [event["waited_s"] for event in events if event.get("waited_s")]
    steps = sum(trial.metrics()[-1]["step"] for trial in run.trials())
    print(
        f"\n{dict(done)}: {events[-1]['time'] - events[0]['time']:.0f} s, {kinds['trial_preempted']} preempted, "
        f"{kinds['trial_recovered']} crashed, {len(repeats)} went on from a checkpoint; steps repeated {sum(repeats)} "
        f"of {steps}, most {max(repeats, default=0)} a loss; "
        f"{sum(lost):.1f} s of work lost, waited {max(waited, default=0):.1f} s at most"
    )


def packed(tree: dict[str, Any], tmp_path: Path, rounds: int, seed: int, epochs: int, trials: int = 32) -> None:
    tree["train"]["num_train_epochs"] = epochs
    run, done = swept(tree, tmp_path, rounds, seed, num_samples=trials, pack=4)
    report(run, done)
    assert_whole(run, trials, 8 * epochs, tmp_path / "study.db")


def solo(tree: dict[str, Any], tmp_path: Path, rounds: int, seed: int, epochs: int) -> None:
    tree["train"]["num_train_epochs"] = epochs
    run, done = swept(tree, tmp_path, rounds, seed, num_samples=6, pack="off", max_concurrent_trials=3)
    report(run, done)
    assert_whole(run, 6, 8 * epochs, tmp_path / "study.db")


def test_a_packed_sweep_loses_nothing_with_its_machines(tree: dict[str, Any], tmp_path: Path) -> None:
    packed(tree, tmp_path, rounds=2, seed=1, epochs=8, trials=10)


@pytest.mark.matrix
def test_a_solo_sweep_loses_nothing_with_its_machines(tree: dict[str, Any], tmp_path: Path) -> None:
    solo(tree, tmp_path, rounds=2, seed=2, epochs=8)


@pytest.mark.matrix
@pytest.mark.parametrize("seed", [10, 11])
def test_many_rounds_packed(tree: dict[str, Any], tmp_path: Path, seed: int) -> None:
    packed(tree, tmp_path, rounds=10, seed=seed, epochs=60)


@pytest.mark.matrix
@pytest.mark.parametrize("seed", [20, 21])
def test_many_rounds_solo(tree: dict[str, Any], tmp_path: Path, seed: int) -> None:
    solo(tree, tmp_path, rounds=10, seed=seed, epochs=60)
