"""A Ray cluster of several machines on this one, where machines can be added, killed, and drained with a warning."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from ftlib.run.directory import Run

SMALL = {"object_store_memory": 80 * 2**20, "include_log_monitor": False}  # of each machine


class Machines:
    """The head runs no trials. Each other machine has `cpus`."""

    def __init__(self, cpus: int = 1) -> None:
        self.cpus = cpus
        quiet = {"include_dashboard": False, "no_monitor": True, **SMALL}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
        self.nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> Any:
        node = self.cluster.add_node(num_cpus=self.cpus, **SMALL)
        self.nodes.append(node)
        return node

    def kill(self, node: Any) -> None:
        """Everything of the machine at once, as when its power goes."""
        raylet = next(iter(node.all_processes["raylet"])).process
        doomed = psutil.Process(raylet.pid).children(recursive=True)
        for process in (psutil.Process(raylet.pid), *doomed):
            process.kill()
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def warn(self, node: Any, seconds: float) -> None:
        """What a cloud says before it takes a machine away."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        deadline = int((time.time() + seconds) * 1000)
        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, why = GcsClient(address=self.address).drain_node(node.node_id, reason, "spot", deadline)
        assert accepted, why

    def start(self, *arguments: Any, **environment: str) -> subprocess.Popen[str]:
        """The command line as a driver of this cluster."""
        return subprocess.Popen(
            [sys.executable, "-m", "ftlib.cli", *map(str, arguments)],
            env={**os.environ, "RAY_ADDRESS": self.address, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@contextmanager
def machines(count: int, cpus: int = 1) -> Iterator[Machines]:
    """So many machines and a head, in a Ray directory of their own: no other Ray finds them, or is found."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: paths of sockets are
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    made = None
    try:
        made = Machines(cpus)
        for _ in range(count):
            made.add()
        yield made
    finally:
        if made is not None:
            made.cluster.shutdown()
        os.environ.pop("RAY_TMPDIR")
        if before is not None:
            os.environ["RAY_TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def run_in(storage: Any, process: subprocess.Popen[str], seconds: float = 120) -> Run:
    """The run that a driver has begun."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        for path in Path(storage).glob("*/resolved.json"):
            return Run(path.parent)
        time.sleep(0.1)
    raise AssertionError(f"no run was begun: {process.communicate()[0] if process.poll() is not None else ''}")


def wait_until(condition: Any, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Waits for a truth; fails with what the driver printed when it ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the driver ended: {process.communicate()[0]}")
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)
