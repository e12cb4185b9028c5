"""What another trial may gain, and when a sweep ends by itself."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from ftlib.config import Experiment
from ftlib.errors import ConfigError
from ftlib.run.directory import Run
from ftlib.sweeps.terminator import Terminator
from ftlib.sweeps.worth import gain_of_another, regret, standard_error

TREE: dict[str, Any] = {
    "name": "x",
    "model": {"name_or_path": "m"},
    "data": {"train": "d"},
    "method": {"type": "sft"},
    "adapter": {"type": "lora"},
}


optuna.logging.set_verbosity(optuna.logging.ERROR)


def experiment(**sweep: Any) -> Experiment:
    space = {"train.learning_rate": {"min": 1e-5, "max": 1e-2, "log": True}}
    return Experiment.parse({**TREE, "sweep": {"space": space, **sweep}})


def test_the_gain_is_what_more_draws_gain() -> None:
    draw = random.Random(0)

    def told_and_seen(value: Callable[[], float]) -> tuple[float, float]:
        drawn = [[value() for _ in range(40)] for _ in range(400)]
        told = statistics.mean(gain_of_another(values[:20], 20) for values in drawn)
        return told, statistics.mean(min(values[:20]) - min(values) for values in drawn)

    told, seen = told_and_seen(lambda: -draw.expovariate(1.0))
    assert told == pytest.approx(seen, rel=0.15)
    told, seen = told_and_seen(lambda: draw.gauss(0, 1))  # a lighter tail: too much is hoped for, never too little
    assert seen < told < 2 * seen
    assert gain_of_another([1.0], 5) == math.inf
    assert gain_of_another([1.0, 1.0, math.inf, math.inf], 5) == 0.0


def test_what_rows_can_tell_is_told_by_differences() -> None:
    parts = [[1.0, 2.0, 3.0], [1.1, 2.1, 3.1], [1.0, 2.2, 3.4]]
    assert standard_error(parts) == pytest.approx((0.0 + 0.2 / math.sqrt(3)) / 2)
    assert standard_error(parts[:1]) == standard_error([]) == 0.0


def test_optunas_bound_is_smaller_where_all_is_flat() -> None:
    def bound(slope: float) -> float:
        study = optuna.create_study()
        draw = random.Random(0)
        for _ in range(12):
            trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
            study.tell(trial, slope * trial.params["x"] + 0.001 * draw.random())
        return regret(study)

    assert bound(0.0) < bound(1.0)


def a_run(folder: Path, values: list[float], noise: float) -> Run:
    run, draw = Run.create(folder, "x", "", {"objective": ["eval_loss", "min"], "experiment": {}}), random.Random(1)
    for number, value in enumerate(values):
        trial = run.trial(f"{number:03d}")
        trial.path.mkdir()
        parts = [value + draw.gauss(0, noise) for _ in range(16)]
        row = {"step": 1, "epoch": 1.0, "tokens": 1, "seconds": 1.0, "progress": 1.0, "eval_loss": value}
        trial.metrics_path.write_text(json.dumps(row | {"eval_loss_parts": parts}) + "\n")
        trial.set_state("finished")
    return run


def test_a_flat_sweep_ends_and_one_that_climbs_goes_on(tmp_path: Path) -> None:
    told, study = experiment(terminator={"type": "gain", "min_trials": 8}), optuna.create_study()
    flat = Terminator(a_run(tmp_path / "flat", [2.0 + 0.0001 * place for place in range(8)], 0.05), told)
    why = flat.look(8, 24, study) or ""
    assert "no trial more is started after 8: the 24 that are left would gain about" in why
    assert "less than half of what the evaluation rows can tell apart" in why
    assert flat.look(9, 24, study) is None  # it speaks once
    climbs = Terminator(a_run(tmp_path / "climbs", [9.0 - place for place in range(8)], 0.05), told)
    assert climbs.look(8, 24, study) is None
    early = Terminator(a_run(tmp_path / "early", [2.0] * 7, 0.05), told)
    assert early.look(7, 24, study) is None
    asked = experiment(terminator={"type": "gain", "min_trials": 8, "min_gain": 100.0})
    assert "below min_gain, 100" in (Terminator(climbs.run, asked).look(8, 24, study) or "")


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"scheduler": {"type": "pbt"}, "search": {"type": "random"}}, "terminator: a population has all its trials"),
        ({"metric": ["eval_loss", "trainable_parameters"]}, "terminator: it judges by one metric"),
        ({"terminator": {"type": "gain", "min_gain_per_cost": 0.1}}, "min_gain_per_cost needs a price"),
    ],
)
def test_what_a_terminator_does_not_go_with_is_said(sweep: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        experiment(**{"terminator": {"type": "gain"}, **sweep})
