"""Secrets inside a job: the driver has them in its environment, and each worker asks for them before it works.

They stand in no runtime environment, which Ray stores and lists, and in no argument of an actor's making, which it
stores too. They go from process to process in the arguments and results of calls, and are gone when the job is.
"""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MARK = "FTLIB_VAULT"  # set in the environment of every process of a job that has secrets
NAMESPACE = "ftlib"
PATIENCE = 60.0


class Vault:
    """An actor that holds the secrets in memory."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def put(self, secrets: dict[str, str]) -> None:
        self.secrets = secrets

    def get(self) -> dict[str, str]:
        return self.secrets


def open_vault(secrets: dict[str, str]) -> Any:
    """The job's vault, on the driver's own node, which outlives spot nodes. It lives as long as the handle."""
    os.environ.update(secrets)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Vault).options(name=_name(), namespace=NAMESPACE, num_cpus=0, scheduling_strategy=here)
    vault = actor.remote()
    ray.get(vault.put.remote(secrets), timeout=PATIENCE)
    return vault


def receive() -> None:
    """Takes the job's secrets, where it has some, into this worker's environment: once a process.

    Not Ray's worker_process_setup_hook: a worker that calls an actor in it dies (Ray 2.60).
    """
    if os.environ.pop(MARK, None):
        vault = ray.get_actor(_name(), namespace=NAMESPACE)
        os.environ.update(ray.get(vault.get.remote(), timeout=PATIENCE))


def _name() -> str:
    return f"vault-{ray.get_runtime_context().get_job_id()}"
