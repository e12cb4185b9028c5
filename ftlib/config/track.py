"""`track:` where the numbers go besides the run directory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftlib.config.section import Section


class Wandb(Section):
    """`mode: auto` is online where a key is set (WANDB_API_KEY or a netrc entry), offline elsewhere."""

    project: str = Field(default="ftlib", min_length=1)
    """The W&B project."""
    entity: str | None = None
    """The W&B user or team; null: your default."""
    name: str | None = Field(default=None, min_length=1)
    """A trial's W&B run is called NAME-TRIAL; null: the experiment's name."""
    group: str | None = Field(default=None, min_length=1)
    """The W&B group of the trials; null: the run directory's name."""
    tags: list[str] = Field(default_factory=list)
    """Tags of each W&B run."""
    notes: str | None = None
    """Notes of each W&B run."""
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto is online where a key is set, offline elsewhere."""


class TrackSection(Section):
    """`wandb: null` turns W&B off; `metrics.jsonl` is always written."""

    wandb: Wandb | None = Field(default_factory=Wandb)
    """Weights & Biases; null turns it off."""
    tensorboard: bool = True
    """Write TensorBoard's files into the run directory."""
