"""What a person should look at before anything is started: one place, the most important first.

What is wrong is refused elsewhere, by name; what stands here is allowed and may be meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftlib.config import Experiment

if TYPE_CHECKING:
    from ftlib.data import DataReport

LONG_HOURS = 6
CUT = 0.05  # the share of rows that are cut, from which on it is said
FEW_STEPS = 20  # optimizer steps in which little is learned
FULL_RATE = 1e-4  # a learning rate that is high for all weights of a model


def findings(experiment: Experiment, data: DataReport, steps: int, hours: float | None) -> list[str]:
    """Sentences, the most important first. `steps` are those of one trial, `hours` of all where that is known."""
    return [
        *_of_time(hours),
        *_of_rows(experiment, data),
        *data.odd,
        *_of_training(experiment, steps),
        *_of_tracking(experiment),
    ]


def _of_time(hours: float | None) -> Iterator[str]:
    if hours is not None and hours > LONG_HOURS:
        yield (
            f"it may take {hours:.0f} hours here: set train.max_steps, data.max_rows or sweep.num_samples lower, or "
            "budget.max_hours"
        )


def _of_rows(experiment: Experiment, data: DataReport) -> Iterator[str]:
    rows = data.train_rows + data.eval_rows
    if data.rows != "text" and data.truncated > CUT * rows:
        yield (
            f"{data.truncated / rows:.0%} of the rows are longer than data.max_length {data.max_length:,} and lose "
            "their "
            "ends: raise it"
        )
    if not experiment.data.held_out:
        yield "nothing is held out (data.eval_split: 0), so how good the model becomes is not measured"


def _of_training(experiment: Experiment, steps: int) -> Iterator[str]:
    train = experiment.train
    if not experiment.method.trains:
        return
    if steps < FEW_STEPS:
        yield f"a trial has {steps} optimizer steps, in which little is learned: more train.num_train_epochs, or rows"
    if train.warmup_steps >= 1 and train.warmup_steps >= steps:
        yield f"train.warmup_steps {train.warmup_steps:g} is all of a trial's {steps} steps: the rate never gets there"
    full = experiment.adapter is None and experiment.model.init == "pretrained"
    if full and train.learning_rate > FULL_RATE and getattr(experiment.method, "freeze", "none") == "none":
        yield f"train.learning_rate {train.learning_rate:g} is high for all weights of a model: 1e-5 to 5e-5 is usual"


def _of_tracking(experiment: Experiment) -> Iterator[str]:
    from ftlib.run.tracking import wandb_mode

    wandb = experiment.track.wandb
    if wandb is not None and wandb_mode(wandb) == "online":
        model = ", and the winner's adapter" if wandb.log_model else ""
        answers = ", and answers with their prompts" if wandb.log_answers and experiment.evaluation.tasks else ""
        yield f"the numbers go to W&B (project {wandb.project}){model}{answers}; track.wandb: null keeps them here"
