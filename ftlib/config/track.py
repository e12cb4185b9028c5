"""`track:` where the numbers go besides the run directory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftlib.config.section import Section


class Wandb(Section):
    """`mode: auto` is online where a key is set (WANDB_API_KEY or a netrc entry), offline elsewhere."""

    project: str = Field(default="ftlib", min_length=1)
    """The W&B project of the runs."""
    entity: str | None = None
    """The W&B user or team. null is the default of your account."""
    name: str | None = Field(default=None, min_length=1)
    """The W&B run of a trial is called NAME-TRIAL. null takes the name of the experiment as NAME."""
    group: str | None = Field(default=None, min_length=1)
    """The W&B group of the trials. null is the name of the run directory."""
    tags: list[str] = Field(default_factory=list)
    """The tags of each W&B run."""
    notes: str | None = None
    """The notes of each W&B run. null gives the run of the sweep its verdict as notes."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto is online where there is a key (WANDB_API_KEY or netrc), and offline elsewhere. offline keeps the runs for
    'wandb sync'. disabled writes nothing."""
    log_model: bool = True
    """The adapter of the winner becomes an artifact of W&B. A whole model is never sent."""
    log_answers: bool = True
    """A table of at most 200 answers, and report.html, go to W&B. They quote your rows."""
    alerts: bool = True
    """W&B sends an alert when the sweep ends or fails, and when the first trial fails. Only online."""


class Mlflow(Section):
    """A parent run for the sweep, and a nested run for each trial. pip install 'ftlib[mlflow]'."""

    uri: str | None = Field(default=None, min_length=1)
    """The tracking server of MLflow: http://HOST:5000, or sqlite:///FILE.db. null takes MLFLOW_TRACKING_URI."""
    experiment: str = Field(default="ftlib", min_length=1)
    """The experiment of MLflow that the runs belong to."""
    registered_model_name: str | None = Field(default=None, min_length=1)
    """The winner becomes the next version of this name in MLflow's model registry. null registers nothing."""


class TrackSection(Section):
    """`wandb: null` turns W&B off; `metrics.jsonl` is always written."""

    wandb: Wandb | None = Field(default_factory=Wandb)
    """Weights & Biases: each trial is a W&B run. null turns it off."""
    mlflow: Mlflow | None = None
    """MLflow: a parent run for the sweep, a nested run for each trial. null turns it off."""
    tensorboard: bool = True
    """Write the metrics for TensorBoard too, into the folder tensorboard of the run directory."""
