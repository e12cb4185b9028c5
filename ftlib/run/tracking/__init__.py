"""Trackers: what follows a run directory and tells W&B, MLflow and TensorBoard of it.

Training never waits for a tracker and never hears of its failures. The libraries are imported when a tracker begins.
"""

from ftlib.run.tracking.follower import check, following
from ftlib.run.tracking.wandb_settings import base_url, wandb_mode
from ftlib.run.tracking.wandb_tracker import wandb_id

__all__ = ["base_url", "check", "following", "wandb_id", "wandb_mode"]
