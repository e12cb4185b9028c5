"""The one place where Ray is started or joined.

It imports no torch: Ray's processes start while the driver imports the rest.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import ray

from ftlib.cluster.interrupt import sigterm_is_ctrl_c
from ftlib.cluster.nodes import NICENESS, WAITING
from ftlib.cluster.ray_private import lean_node, silence_raylets
from ftlib.cluster.token import guard_local_cluster
from ftlib.errors import ConfigError, FtlibError

if TYPE_CHECKING:
    from ftlib.config import Experiment

LONGEST_FOLDER = 107 - len("/session_2026-11-27_10-59-17_123456_1234567/sockets/plasma_store.1")


def start_ray(cpus: int | None = None) -> None:
    """Connects to the cluster in `RAY_ADDRESS`, or starts a quiet local one."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault(*NICENESS)
    os.environ.setdefault(*WAITING)
    silence_raylets()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        guard_local_cluster()
        with lean_node():
            ray.init("local", num_cpus=cpus, include_dashboard=False, _temp_dir=_short_folder(), **quiet)
    sigterm_is_ctrl_c()


def leave_ray() -> None:
    """Ends the Ray that `start_ray` has started, or leaves the cluster: another process is about to need the cores."""
    if ray.is_initialized():
        ray.shutdown()


def _short_folder() -> str | None:
    """A folder for Ray's sockets. Their paths have at most 107 bytes, and TMPDIR may be too long for that. None means
    Ray's own choice. Raises FtlibError where no folder is short enough."""
    likes = os.path.join(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")
    if len(os.fsencode(os.path.abspath(likes))) <= LONGEST_FOLDER:
        return None
    if os.environ.get("RAY_TMPDIR") or not os.access("/tmp", os.W_OK | os.X_OK):
        raise FtlibError(
            f"{likes} is too long for Ray's sockets ({LONGEST_FOLDER} bytes at most): set RAY_TMPDIR to a shorter "
            "folder."
        )
    return "/tmp/ray"


def wanted(experiment: Experiment) -> dict[str, float]:
    """What a worker of a trial asks the cluster for."""
    return {name: amount for name, amount in experiment.scale.resources_per_worker.items() if amount}


def check_resources(experiment: Experiment) -> None:
    """Raises ConfigError where this machine is too small for one trial, which would wait for ever. A cluster
    (RAY_ADDRESS) may still grow, so it is not checked."""
    if os.environ.get("RAY_ADDRESS"):
        return
    have = ray.cluster_resources()
    for name, amount in wanted(experiment).items():
        total = amount * experiment.scale.num_workers
        if have.get(name, 0) < total:
            raise ConfigError(
                f"scale.resources_per_worker.{name}: a trial needs {total:g} {name}, but this machine has "
                f"{have.get(name, 0):g}: lower it, or set RAY_ADDRESS to a cluster."
            )
