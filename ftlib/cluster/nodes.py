"""The machines of the cluster: which are there, and which are about to be taken away."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import ray

from ftlib.cluster.ray_private import actor_row, draining_nodes
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.run.layout import PLACE

# Ray gives its workers a niceness of 15: beside any other busy process they get a thirtieth of a core, and a model
# takes minutes to load.
NICENESS = ("RAY_worker_niceness", "0")
# What OpenMP's threads do between two pieces of work; a worker reads it as it imports torch. By default they spin, and
# beside one busy process each piece waits for a thread that has no core: a packed step took 25 times as long.
WAITING = ("OMP_WAIT_POLICY", "PASSIVE")
DOOR_SECONDS = 2.0


def here() -> str:
    """The id of the machine on which this process runs."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def note_place(trial: Path) -> None:
    """Writes into a trial's directory on which machine it runs. The driver and people read it."""
    where = {"node": here(), "ip": ray.util.get_node_ip_address(), "pid": os.getpid(), "since": time.time()}
    write_json(trial / PLACE, where)


def place_of(trial: Path) -> str | None:
    """The machine on which a trial was last seen."""
    return (read_json(trial / PLACE, dict) or {}).get("node")


def answers(node: str | None) -> bool:
    """Whether a machine still runs. It is asked directly, because the cluster notices a lost machine only after half a
    minute."""
    known = {machine["NodeID"]: machine for machine in ray.nodes() if machine["Alive"]}
    if node not in known:
        return False
    door = (known[node]["NodeManagerAddress"], known[node]["NodeManagerPort"])
    try:
        socket.create_connection(door, timeout=DOOR_SECONDS).close()
    except OSError:
        return False
    return True


def leaving() -> dict[str, float | None]:
    """The machines that the cloud or the cluster takes away, and when (seconds of the clock, None where it was not
    said)."""
    return {node: deadline / 1000 if deadline else None for node, deadline in draining_nodes().items()}


def of_actor(actor_id: str | None) -> str | None:
    """The machine that an actor was on, also of a dead one."""
    if actor_id is None:
        return None
    node = actor_row(actor_id).get("Address", {}).get("NodeID")
    return node if node and node.strip("f") else None  # Ray's nil is all ones
