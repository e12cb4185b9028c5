"""A sweep on a cluster that grows for it and shrinks after it: machines 0 to N to 0, and how much of their time was
needed.

    python benchmarks/autoscaler.py [--machines 2] [--trials 32] [--steps 480] [--pack 4] [--idle 6]

Ray's own autoscaler over its fake provider: a machine is a raylet with one CPU here. The head has none, and the driver
runs beside it. Used are the seconds that machines stood, from Ray's own table; needed are those in which a trial
trained on them, from the run's events: starting a machine, importing, waiting and the idle timeout are not. All of it
has a pid namespace, ports and a directory of its own: no other Ray is found, and nothing outlives the script.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from against_plain_tune import CASES, make_inputs, ours_command

from ftlib.run.cost import spent
from ftlib.run.directory import Run

PATIENCE = 60.0  # seconds within which machines that are idle have to go
AS_RAY_TESTS = ("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check")
INSIDE = "FTLIB_BENCH_INSIDE"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=2, help="how many there may be")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--pack", default="4")
    parser.add_argument("--idle", type=float, default=6, help="seconds after which an idle machine goes")
    asked = parser.parse_args()
    if INSIDE not in os.environ:
        sys.exit(in_a_namespace())
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # short: paths of sockets are
        print(json.dumps(measure(Path(folder), asked)), flush=True)


def in_a_namespace() -> int:
    """This script again, as the first process of a pid namespace: what it starts ends with it."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc"]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, **token, INSIDE: "1"}
    return subprocess.run([*unshare, sys.executable, *sys.argv], env=environment).returncode


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    case = CASES["natural"] | {"trials": asked.trials, "steps": asked.steps}
    case["pack"] = asked.pack if asked.pack in ("off", "auto") else int(asked.pack)
    make_inputs(folder, case)
    address = start_head(folder, asked.machines, asked.idle)
    before = len(standing(address))
    began = time.monotonic()
    sweep(folder, case, address)
    seconds = time.monotonic() - began
    while standing(address):
        if time.monotonic() - began > seconds + asked.idle + PATIENCE:
            log = (folder / "ray" / "session_latest" / "logs" / "monitor.log").read_text()
            sys.exit(f"machines still stand {PATIENCE:.0f} s after the sweep: {standing(address)}\n{log[-5000:]}")
        time.sleep(0.5)
    (path,) = (folder / "ours-0").iterdir()
    run = Run(path)
    used = [(node.start_time_ms / 1000, node.end_time_ms / 1000) for node in machines(address)]
    used_s = sum(gone - came for came, gone in used)
    needed_s = sum(spent(run).by_trial.values())
    return {
        "machines": [before, most_at_once(used), len(standing(address))],
        "trials": len([trial for trial in run.trials() if trial.state == "finished"]),
        "sweep_s": round(seconds, 1),
        "stood_s": [round(gone - came, 1) for came, gone in used],
        "used_s": round(used_s, 1),
        "needed_s": round(needed_s, 1),
        "share": round(needed_s / used_s, 3),
    }


def start_head(folder: Path, most: int, idle: float) -> str:
    """A head without CPUs, and the autoscaler on it; its address."""
    from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG

    port, client, agent = free_ports(3)
    address = f"127.0.0.1:{port}"
    kinds = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "machine": {"resources": {"CPU": 1, "object_store_memory": 80 * 2**20}, "node_config": {}, "max_workers": most},
    }
    config = BASE_READONLY_CONFIG | {
        "max_workers": most,
        "idle_timeout_minutes": idle / 60,
        "provider": {"type": "fake_multinode", "gcs_address": address, **dict.fromkeys(AS_RAY_TESTS, True)},
        "available_node_types": kinds,
    }
    (folder / "autoscaling.json").write_text(json.dumps(config))
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--num-cpus=0", f"--port={port}"),
        *("--node-ip-address=127.0.0.1", f"--temp-dir={folder / 'ray'}", f"--object-store-memory={80 * 2**20}"),
        *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"),
        *("--include-dashboard=false", "--disable-usage-stats", f"--autoscaling-config={folder}/autoscaling.json"),
    ]
    fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_TMPDIR": str(folder / "ray")}
    done = subprocess.run(command, env={**os.environ, **fake}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"no head came up:\n{done.stdout}\n{done.stderr}")
    return address


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def sweep(folder: Path, case: dict[str, Any], address: str) -> None:
    """`ftlib sweep`, as a driver of that cluster."""
    here = {"RAY_ADDRESS": address, "RAY_TMPDIR": str(folder / "ray"), "FTLIB_HOME": str(folder / "home")}
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = {**os.environ, **here, **quiet}
    done = subprocess.run(ours_command(folder, case, 0), env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the sweep failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def machines(address: str) -> list[Any]:
    """All that ever stood, without the head: entries of Ray's table."""
    from ray._raylet import GcsClient

    return [node for node in GcsClient(address=address).get_all_node_info().values() if not node.is_head_node]


def standing(address: str) -> list[str]:
    return [node.node_id.hex() for node in machines(address) if not node.end_time_ms]


def most_at_once(stood: list[tuple[float, float]]) -> int:
    return max((sum(came <= moment < gone for came, gone in stood) for moment, _ in stood), default=0)


if __name__ == "__main__":
    main()
