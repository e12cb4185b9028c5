"""Ray's private names are there, and do what they are used for."""

from __future__ import annotations

import subprocess
import sys

import psutil
from ray._private.node import Node

from ftlib.cluster.ray_private import LEAN_RAYLET, UNUSED, KeyValues, actor_row, draining_nodes, lean_node, logs_folder


def test_a_local_node_has_no_processes_that_nobody_asks(ray_local: None) -> None:
    started = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
    assert any("raylet" in command for command in started)
    left_out = ("log_monitor", "monitor.py", "dashboard.py", "dashboard/agent.py")
    assert not any(name in command.split("--dashboard_agent_command")[0] for command in started for name in left_out)
    kept = {name: getattr(Node, name) for name in UNUSED}
    with lean_node():
        assert all(getattr(Node, name) is not method for name, method in kept.items())
    assert kept == {name: getattr(Node, name) for name in UNUSED}


def test_the_driver_does_not_import_what_a_dashboard_needs() -> None:
    looks = "import sys; from ftlib.cluster.session import start_ray; start_ray(1); print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_raylet_waits_for_no_agent_and_no_worker(ray_local: None) -> None:
    (raylet,) = [told for process in psutil.Process().children() if "raylet/raylet" in (told := process.cmdline())[0]]
    named = [word for word in raylet if word.partition("=")[0] in LEAN_RAYLET]
    assert sorted(named) == sorted(f"{name}={value}" for name, value in LEAN_RAYLET.items())


def test_what_the_cluster_knows(ray_local: None) -> None:
    assert draining_nodes() == {}
    assert actor_row("ff" * 16) == {}
    assert logs_folder().is_dir()


def test_keys_and_values(ray_local: None) -> None:
    notes = KeyValues(b"ftlib-test")
    assert notes.get(b"a") is None
    notes.put(b"a", b"1")
    notes.put(b"a", b"2")
    assert (notes.get(b"a"), notes.names()) == (b"2", [b"a"])
    notes.remove(b"a")
    notes.remove(b"a")
    assert notes.names() == []
