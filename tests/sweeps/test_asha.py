"""Successive halving without Ray's controller: who is stopped, and when."""

from __future__ import annotations

import math
from typing import Any

from ray.tune.experiment import Trial

from ftlib.sweeps.asha import SuccessiveHalving
from ftlib.sweeps.steering import Sparing


class Controller:
    """What a scheduler asks of Tune's."""

    def __init__(self, calls_back: bool = True, mode: str = "min", spared: str | None = None) -> None:
        halving = SuccessiveHalving("step", (10, 30), reduction_factor=3, calls_back=calls_back)
        self.scheduler = Sparing(halving, f"name_{spared}".__eq__)
        self.scheduler.set_search_properties("score", mode)
        self.running: dict[str, Trial] = {}

    def get_live_trials(self) -> set[Trial]:
        return set(self.running.values())

    def stop_trial(self, trial: Trial) -> None:
        self.scheduler.on_trial_complete(self, trial, trial.last_result)
        del self.running[trial.trial_id]

    def start(self, name: str, last: dict[str, Any] | None = None, status: str = Trial.RUNNING) -> None:
        trial = Trial("name", trial_id=name, stub=True)
        trial.set_status(status)
        trial.run_metadata.last_result = last or {}
        self.scheduler.on_trial_add(self, trial)
        if status == Trial.RUNNING:
            self.running[name] = trial

    def hears(self, name: str, step: int, score: float) -> None:
        result = {"step": step, "score": score}
        if self.scheduler.on_trial_result(self, self.running[name], result) == "STOP":
            del self.running[name]

    def hear_all(self, step: int, scores: dict[str, float]) -> set[str]:
        for name, score in scores.items():
            if name not in self.running:
                self.start(name)
            self.hears(name, step, score)
        return set(self.running)


WORST_FIRST = {"f": 6.0, "e": 5.0, "d": 4.0, "c": 3.0, "b": 2.0, "a": 1.0}
BEST_FIRST = dict(reversed(WORST_FIRST.items()))


def test_who_came_first_is_called_back_when_better_ones_come() -> None:
    assert Controller().hear_all(10, WORST_FIRST) == {"a", "b", "c"}  # the best third, and one more
    assert Controller().hear_all(10, BEST_FIRST) == {"a", "b"}  # of three that had come, c was beaten by two


def test_a_spared_trial_is_neither_called_back_nor_stopped_when_it_comes() -> None:
    tune = Controller(spared="f")
    assert tune.hear_all(10, WORST_FIRST) == {"f", "a", "b", "c"}
    assert tune.hear_all(30, {"a": 0.1, "b": 0.2, "c": 0.3, "f": 0.4}) == {"f", "a", "b"}


def test_a_trial_that_cannot_be_called_back_is_compared_when_it_comes() -> None:
    assert Controller(calls_back=False).hear_all(10, WORST_FIRST) == set(WORST_FIRST)
    assert Controller(calls_back=False).hear_all(10, BEST_FIRST) == {"a"}


def test_a_trial_answers_for_its_last_rung_alone() -> None:
    tune = Controller()
    tune.hear_all(10, {"f": 6.0, "e": 5.0})
    tune.hears("f", 30, 0.5)  # it has come further before better ones came to the first rung
    assert tune.hear_all(10, {"d": 4.0, "c": 3.0, "b": 2.0, "a": 1.0}) == {"f", "a", "b", "c"}
    assert tune.hear_all(30, {"c": 0.4, "b": 0.3, "a": 0.2}) == {"a", "b", "c"}


def test_between_two_rungs_nothing_is_decided() -> None:
    tune = Controller()
    assert tune.hear_all(9, WORST_FIRST) == set(WORST_FIRST)
    assert tune.hear_all(12, WORST_FIRST) == {"a", "b", "c"}  # the first report past the rung counts
    assert tune.hear_all(20, {"a": 9.0, "b": 9.0}) == {"a", "b", "c"}


def test_more_can_be_better_and_a_number_that_is_none_is_the_worst() -> None:
    assert Controller(mode="max").hear_all(10, BEST_FIRST) == {"f", "e", "d"}
    assert Controller(mode="max").hear_all(10, {**BEST_FIRST, "f": math.nan}) == {"e", "d", "c"}
    assert Controller().hear_all(10, {**WORST_FIRST, "a": math.nan}) == {"d", "c", "b"}


def test_a_result_without_the_metric_is_passed_over() -> None:
    tune = Controller()
    tune.start("a")
    assert tune.scheduler.on_trial_result(tune, tune.running["a"], {"step": 10}) == "CONTINUE"
    assert tune.scheduler.on_trial_result(tune, tune.running["a"], {"failure": "out of memory"}) == "CONTINUE"


def test_a_resumed_sweep_knows_who_was_stopped_where() -> None:
    tune = Controller()
    for name in "abc":
        tune.start(name, {"step": 10, "score": BEST_FIRST[name]}, Trial.TERMINATED)
    assert tune.hear_all(10, {"f": 6.0, "d": 4.0}) == set()


def test_what_the_evaluation_rows_cannot_tell_apart_goes_on() -> None:
    """Each part of the rows has a trial a little better or worse, in turn; or all parts say the same."""
    noisy = {
        "a": [1.0, 1.0, 1.0, 1.0],
        "b": [0.9, 1.4, 0.8, 1.3],
        "c": [1.1, 1.11, 1.12, 1.11],
        "d": [9.0, 9.0, 9.5, 9.1],
    }
    tune = Controller(calls_back=False)
    for name in noisy:
        tune.start(name)
    for name, parts in noisy.items():
        result = {"step": 10, "score": sum(parts) / 4, "score_parts": parts}
        if tune.scheduler.on_trial_result(tune, tune.running[name], result) == "STOP":
            del tune.running[name]
    assert set(tune.running) == {"a", "b"}
