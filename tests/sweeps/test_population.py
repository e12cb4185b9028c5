"""Tune's population-based training, where it would wait for ever and where a donor has moved on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.experiment import Trial

from ftlib.files.atomic import replace_directory
from ftlib.run.directory import Run
from ftlib.sweeps.population import Population
from ftlib.training.recorder import copy_checkpoint


class Controller:
    """What the scheduler asks of Tune's, for trials that pause whenever they are told to."""

    search_alg = None

    def __init__(self, run: Run) -> None:
        self.scheduler = Population(
            time_attr="tokens",
            metric="eval_loss",
            mode="min",
            perturbation_interval=10,
            hyperparam_mutations={"rate": [1.0, 2.0]},
            quantile_fraction=0.5,
            synch=True,
            log_config=False,
        )
        self.scheduler.run = run
        self.trials = [Trial("name", trial_id=name, config={"rate": 1.0}, stub=True) for name in ("000", "001")]
        for trial in self.trials:
            trial.custom_trial_name = trial.trial_id
            trial.set_status(Trial.RUNNING)
            self.scheduler.on_trial_add(self, trial)

    def get_trials(self) -> list[Trial]:
        return self.trials

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.is_finished()]

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        trial.set_status(Trial.PAUSED)

    def _schedule_trial_save(self, trial: Trial, result: Any = None) -> None:
        return None

    def hears(self, number: int, tokens: int, loss: float) -> None:
        trial = self.trials[number]
        result = {"tokens": tokens, "eval_loss": loss}
        trial.run_metadata.checkpoint_manager._latest_checkpoint_result = _TrainingResult(Checkpoint("/"), result)
        if self.scheduler.on_trial_result(self, trial, result) == "PAUSE":
            trial.set_status(Trial.PAUSED)

    def next(self) -> str | None:
        chosen = self.scheduler.choose_trial_to_run(self)
        if chosen is not None:
            chosen.set_status(Trial.RUNNING)
        return None if chosen is None else str(chosen)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    for name in ("000", "001"):
        (tmp_path / "trials" / name).mkdir(parents=True)
    return Run(tmp_path)


def save(run: Run, trial: str, text: str) -> None:
    """As a trial does: a new directory in the place of the old one."""
    staged = run.trial(trial).path / "staged"
    staged.mkdir()
    (staged / "weights").write_text(text)
    replace_directory(staged, run.trial(trial).path / "checkpoint")


def test_nobody_goes_on_before_the_others_have_come(run: Run) -> None:
    tune = Controller(run)
    tune.hears(0, 10, 1.0)
    assert tune.next() is None
    tune.hears(1, 10, 2.0)
    assert {tune.next(), tune.next()} == {"000", "001"}


def test_trials_that_have_all_passed_the_next_meeting_go_on(run: Run) -> None:
    """A resumed sweep: Tune's clock starts at zero, and the trials are far ahead."""
    tune = Controller(run)
    tune.hears(0, 40, 1.0)
    assert tune.next() is None
    tune.hears(1, 40, 2.0)
    assert {tune.next(), tune.next()} == {"000", "001"}


@pytest.mark.parametrize("end", [Trial.TERMINATED, Trial.ERROR])
def test_nobody_waits_for_a_trial_that_has_ended(run: Run, end: str) -> None:
    tune = Controller(run)
    tune.hears(0, 10, 1.0)
    tune.trials[1].set_status(end)
    assert tune.next() == "000"


def test_a_taker_gets_the_position_that_its_donor_had_when_it_was_given(run: Run) -> None:
    tune = Controller(run)
    save(run, "000", "at 10")
    tune.hears(0, 10, 1.0)
    tune.hears(1, 10, 2.0)
    save(run, "000", "at 20")
    copy_checkpoint(run.trial("000"), run.trial("001"))
    assert (run.trial("001").path / "checkpoint" / "weights").read_text() == "at 10"
    assert run.events() == []
    assert (run.trial("000").path / "checkpoint" / "weights").read_text() == "at 20"


def test_what_was_given_earlier_is_not_given_again(run: Run) -> None:
    tune = Controller(run)
    for tokens in (10, 20):
        save(run, "000", f"at {tokens}")
        tune.hears(0, tokens, 1.0)
        tune.hears(1, tokens, 2.0)
        assert {tune.next(), tune.next()} == {"000", "001"}
    copy_checkpoint(run.trial("000"), run.trial("001"))
    assert (run.trial("001").path / "checkpoint" / "weights").read_text() == "at 20"
    run.trial("001").sweep_up()
    save(run, "000", "at 30")
    copy_checkpoint(run.trial("000"), run.trial("001"))  # on another machine, nothing was put aside
    assert (run.trial("001").path / "checkpoint" / "weights").read_text() == "at 30"


def test_a_position_that_cannot_be_kept_is_told(run: Run) -> None:
    tune = Controller(run)
    tune.hears(0, 10, 1.0)  # its checkpoint is on another machine
    tune.hears(1, 10, 2.0)
    (event,) = run.events()
    assert (event["event"], event["trial"], event["donor"]) == ("position_not_kept", "001", "000")
