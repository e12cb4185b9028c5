"""`track:` where the numbers go besides the run directory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftlib.config.section import Section


class Wandb(Section):
    """`mode: auto` is online where a key is set (WANDB_API_KEY or a netrc entry), offline elsewhere."""

    project: str = Field(default="ftlib", min_length=1)
    entity: str | None = None
    name: str | None = Field(default=None, min_length=1)  # a trial's run is NAME-TRIAL; null: the experiment's name
    group: str | None = Field(default=None, min_length=1)  # null: the run directory's name
    tags: list[str] = Field(default_factory=list)
    notes: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"


class TrackSection(Section):
    """`wandb: null` turns W&B off; `metrics.jsonl` is always written."""

    wandb: Wandb | None = Field(default_factory=Wandb)
    tensorboard: bool = True
