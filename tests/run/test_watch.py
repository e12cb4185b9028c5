"""What is said of a run while it is at work."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from ftlib.files.atomic import write_json
from ftlib.files.json_files import append_row
from ftlib.run import watch
from ftlib.run.directory import Run
from ftlib.run.watch import Watch, summary


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Of one trial, a quarter done."""
    made = Run.create(tmp_path, "run", "", {"experiment": {}, "objective": ["eval_loss", "min"]})
    trial = made.new_trial()
    write_json(trial.path / "params.json", {})
    trial.set_state("running")
    append_row(trial.metrics_path, {"step": 10, "progress": 0.25, "loss": 1.5, "seconds": 1.0, "tokens": 100})
    return made


def seconds_ago(run: Run, seconds: float, **more: bool) -> Watch:
    now = watch.time.monotonic()
    return Watch(run, 1, more.get("at_most", False), more.get("before", 0.0), now - seconds, told=now - seconds)


def test_a_single_trial_tells_step_loss_and_time_left(run: Run) -> None:
    assert summary(seconds_ago(run, 30)) == (
        "0/1 trials done · 1 running · step 10 (25%) · loss 1.5000 · 0:30 gone, about 1:30 to go"
    )


def test_early_stopping_makes_it_at_most(run: Run) -> None:
    assert summary(seconds_ago(run, 30, at_most=True)).endswith("0:30 gone, at most 1:30 to go")


def test_what_an_earlier_driver_did_took_this_one_no_time(run: Run) -> None:
    assert summary(seconds_ago(run, 30, before=0.15)).endswith("0:30 gone, about 3:45 to go")


def test_half_a_minute_without_a_line_brings_one(run: Run) -> None:
    out = io.StringIO()
    watched, console = seconds_ago(run, 31), Console(file=out)
    watch._print_news(watched, console)
    assert out.getvalue() == "trial 000 started\n"
    watch._print_news(watched, console)
    assert out.getvalue() == "trial 000 started\n"
    watched.told -= 31
    watch._print_news(watched, console)
    assert out.getvalue().splitlines()[1].startswith("0/1 trials done · 1 running · step 10 (25%) · loss 1.5000")
