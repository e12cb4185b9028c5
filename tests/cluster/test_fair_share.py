"""Two sweeps on one cluster: who came first gives to who waits, until both have the same, and nothing is trained
twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlib.cluster.fair_share import Claim, Shares, allowed, shared
from ftlib.config import ScaleSection
from ftlib.run.directory import Run
from tests.conftest import write_experiment
from tests.support.machines import machines, run_in, wait_until


def claim(has: float, wants: float, waits: float = 99, unit: float = 1, resource: str = "CPU") -> Claim:
    return Claim(resource, unit, has, wants, waits, told=0)


@pytest.mark.parametrize(
    ("mine", "other", "may"),
    [
        (claim(4, 9), claim(0, 9), 3),  # one at a time
        (claim(3, 9), claim(1, 9), 2),
        (claim(2, 9), claim(1, 9), 2),  # to give would only turn it round; but no more is asked for
        (claim(2, 9), claim(2, 9), None),
        (claim(1, 9), claim(0, 9), 1),  # the last one is kept
        (claim(4, 9), claim(0, 9, waits=1), None),  # it came just now
        (claim(4, 9), claim(0, 9, resource="GPU"), None),
        (claim(8, 9), claim(0, 9, unit=4), 7),
        (claim(4, 9), claim(0, 9, unit=4), 4),  # with one of its workers it would have more than what is left
    ],
)
def test_who_gives(mine: Claim, other: Claim, may: float | None) -> None:
    assert allowed(mine, [other, claim(2, 2, waits=0)], patience=60) == may


@pytest.mark.usefixtures("ray_local")
def test_sweeps_hear_of_each_other_until_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlib.cluster.fair_share.PATIENCE", 0.0)
    scale = ScaleSection(resources_per_worker={"CPU": 2})
    rich, poor = Shares("rich", scale), Shares("poor", scale)
    rich.has, rich.wants = 3, 8
    with shared(poor):
        poor.exchange()
        rich.exchange()
        assert rich.limit == 2
        rich.exchange()
        assert rich.limit is None  # it had nothing of it: it waits for something else
        poor.has = 1  # it has what it wants
        poor.exchange()
        rich.exchange()
        assert rich.limit is None
    assert list(rich._others()) == []


@pytest.mark.matrix
@pytest.mark.parametrize("pack", [2, "off"])
def test_a_sweep_that_comes_later_gets_its_share(
    tree: dict[str, Any], tmp_path: Path, pack: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTLIB_SHARE_PATIENCE_S", "3")
    tree["train"].update(
        num_train_epochs=300 if pack == 2 else 100, eval_strategy="steps", eval_steps=40, logging_steps=1
    )
    space = {"train.learning_rate": {"min": 1e-3, "max": 1e-2, "log": True}}
    section = {"space": space, "scheduler": {"type": "none"}, "pack": pack, "baseline": False}
    with machines(2) as nodes:
        started = []
        for name, samples in (("first", 6), ("second", 2)):
            tree |= {"storage": str(tmp_path / name), "sweep": {**section, "num_samples": samples}}
            process = nodes.start("sweep", write_experiment(tmp_path / f"{name}.yaml", tree))
            run = run_in(tree["storage"], process)
            if name == "first":
                wait_until(lambda run=run: at_once(run, "trial_started") >= (4 if pack == 2 else 2), process)
            started.append((run, process))
        for run, process in started:
            output, _ = process.communicate(timeout=400)
            assert process.returncode == 0, output
            assert {trial.state for trial in run.trials()} == {"finished"}
            for trial in run.trials():
                steps = [row["step"] for row in trial.metrics() if "loss" in row]
                assert steps == list(range(1, len(steps) + 1))
    (first, _), (second, _) = started
    begun = next(event["time"] for event in second.events() if event["event"] == "trial_started")
    assert begun < first.events()[-1]["time"]
    given = [event for event in first.events() if event["event"] == "trial_preempted"]
    assert {event["reason"] for event in given} == {"another sweep waits for its share of the cluster"}
    assert all(event["lost_s"] < 5 for event in given)
    assert all(event["repeats"] == 0 for event in first.events() if event["event"] == "trial_continued")
    assert not [event for event in second.events() if event["event"] == "trial_preempted"]


def at_once(run: Run, kind: str) -> int:
    return len({event["trial"] for event in run.events() if event["event"] == kind})
