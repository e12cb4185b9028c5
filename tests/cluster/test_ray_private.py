"""Ray's private names are there, and do what they are used for."""

from __future__ import annotations

import psutil
from ray._private.node import Node

from ftlib.cluster.ray_private import UNUSED, KeyValues, actor_row, draining_nodes, lean_node, logs_folder


def test_a_local_node_has_no_processes_that_nobody_asks(ray_local: None) -> None:
    started = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
    assert any("raylet" in command for command in started)
    assert not any(name in command for command in started for name in ("log_monitor", "monitor.py", "dashboard.py"))
    kept = {name: getattr(Node, name) for name in UNUSED}
    with lean_node():
        assert all(getattr(Node, name) is not method for name, method in kept.items())
    assert kept == {name: getattr(Node, name) for name in UNUSED}


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
