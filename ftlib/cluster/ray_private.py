"""What Ray has no public name for, all of it here; read at Ray 2.60. (Of Ray Tune: `ftlib/sweeps/tune_private.py`.)

`pyproject.toml` allows the versions that these names were read at, and tests/cluster/test_ray_private.py asks for each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._private import services, utils, worker
from ray._private.node import Node
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray._private.state import state
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.experimental import internal_kv

# Processes of a node that a local Ray does without: one copies workers' output to a driver (ours does not want it), one
# asks an autoscaler, one serves a dashboard. Each takes a second of a core to start, and goes on looking.
UNUSED = ("start_log_monitor", "start_monitor", "start_api_server")
# What the raylet starts itself, and waits for. The dashboard's agent, before it lets a worker begin: `cat` ends with
# the raylet as the agent does, and a port of -1 says that there is no dashboard. And a worker for each CPU, before it
# lets a driver connect.
LEAN_RAYLET = {
    "--dashboard_agent_command": "cat",
    "--metrics-agent-port": "-1",
    "--metrics_export_port": "-1",
    "--dashboard_agent_listen_port": "-1",
    "--num_prestart_python_workers": "0",
}
NODE_SECONDS = 30.0  # as Ray waits for it
POLL_SECONDS = 0.02


def silence_raylets() -> None:
    """Stops a thread of the driver that prints the raylets' complaints, whatever `log_to_driver` says. Ray's logs keep
    them."""
    worker.print_to_stdstream = lambda *given, **more: None


@contextmanager
def lean_node() -> Iterator[None]:
    """Within, a node that starts leaves out what `UNUSED` and `LEAN_RAYLET` name, and is met as soon as it is there."""
    start, get_node = services.start_ray_process, services.get_node

    def start_lean(command: list[str], kind: str, *args: Any, **more: Any) -> Any:
        return start(_lean(command) if kind == PROCESS_TYPE_RAYLET else command, kind, *args, **more)

    def get_soon(gcs_address: str, node_id: str) -> Any:
        _wait_for_a_node(gcs_address)
        return get_node(gcs_address, node_id)

    nothing = {name: lambda *given, **more: None for name in UNUSED}
    unasked = {"get_dashboard_dependency_error": lambda: None}  # it imports what a dashboard would need
    with (
        _instead(Node, nothing),
        _instead(services, {"start_ray_process": start_lean, "get_node": get_soon}),
        _instead(utils, unasked),
    ):
        yield


@contextmanager
def _instead(place: Any, others: dict[str, Any]) -> Iterator[None]:
    """Within, `place` has these attributes."""
    kept = {name: getattr(place, name) for name in others}
    for name, other in others.items():
        setattr(place, name, other)
    try:
        yield
    finally:
        for name, own in kept.items():
            setattr(place, name, own)


def _lean(command: list[str]) -> list[str]:
    """A raylet's command line."""
    rest = [word for word in command if word.partition("=")[0] not in LEAN_RAYLET]
    return [*rest, *(f"{name}={value}" for name, value in LEAN_RAYLET.items())]


def _wait_for_a_node(gcs_address: str) -> None:
    """Until the raylet has registered: Ray itself looks once a second."""
    client, end = GcsClient(address=gcs_address), time.monotonic() + NODE_SECONDS
    while not client.get_all_node_info() and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


def draining_nodes() -> dict[str, int]:
    """The nodes that are about to be taken away, and when, in milliseconds of the clock; 0 where it was not said."""
    told: dict[str, int] = state.get_draining_nodes()
    return told


def actor_row(actor_id: str) -> dict[str, Any]:
    """What the cluster knows of an actor, also of a dead one; empty where it knows nothing."""
    return state.actor_table(actor_id) or {}


def logs_folder() -> Path:
    """The folder of this machine that Ray's log service streams from."""
    return Path(worker.global_worker.node.get_logs_dir_path())


class KeyValues:
    """The cluster's key-value store, under one namespace. It asks the client of this process's worker: Ray's own module
    for the store forgets its client when any test cluster of the process ends."""

    def __init__(self, namespace: bytes) -> None:
        self._namespace = namespace

    @property
    def _client(self) -> Any:
        return worker.global_worker.gcs_client

    def names(self) -> list[bytes]:
        """All keys of the namespace."""
        found: list[bytes] = self._client.internal_kv_keys(b"", self._namespace)
        return found

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None where there is none."""
        found: bytes | None = self._client.internal_kv_get(key, self._namespace)
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """Sets the value of a key, in the place of an earlier one."""
        self._client.internal_kv_put(key, value, True, self._namespace)

    def remove(self, key: bytes) -> None:
        """Removes a key. It is no error where there is none."""
        self._client.internal_kv_del(key, False, self._namespace)


def put_package(client: Any, key: str, content: bytes) -> None:
    """Puts a package into a cluster through a `JobSubmissionClient`, under a key `gcs://NAME`. Raises what `requests`
    raises."""
    path = f"/api/packages/gcs/{key.removeprefix('gcs://')}"
    client._do_request("PUT", path, data=content).raise_for_status()


def take_package(key: str) -> bytes | None:
    """Reads a package that a client has put into the cluster, and removes it. None where there is none yet."""
    found: bytes | None = internal_kv._internal_kv_get(key.encode())
    if found is not None:
        internal_kv._internal_kv_del(key.encode())
    return found


def check_cluster_config(tree: dict[str, Any]) -> None:
    """What `ray up` finds wrong in a cluster file. Raises jsonschema.ValidationError or ValueError; changes `tree`."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(tree))
