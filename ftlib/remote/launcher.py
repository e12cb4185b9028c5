"""A cluster file of Ray's launcher: checked, priced, and handed to Ray's own commands.

The only key of ours is `metadata.prices`, the price of a node of each type an hour, where Ray's own schema leaves room.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ftlib.cluster.token import MODE, ensure_token
from ftlib.config.loader import read_mapping
from ftlib.errors import ConfigError, FtlibError, nearest

SDK = {"aws": ("boto3", "boto3"), "gcp": ("googleapiclient", "google-api-python-client")}


@dataclass(frozen=True)
class NodeType:
    """A kind of machine: how many there are at the least and at the most, and what one costs an hour."""

    name: str
    least: int
    most: int
    price: float
    spot: bool
    resources: dict[str, float]


@dataclass(frozen=True)
class ClusterFile:
    """A cluster file that Ray's validator accepts."""

    path: Path
    tree: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> ClusterFile:
        """Reads a cluster file. Raises ConfigError with what Ray or ftlib finds wrong in it."""
        import jsonschema

        from ftlib.cluster.ray_private import check_cluster_config

        tree = read_mapping(path, "a cluster file")
        logging.getLogger("ray.autoscaler").setLevel(logging.WARNING)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it tells of file mounts, on which 'ray up' speaks again
                check_cluster_config(copy.deepcopy(tree))
        except jsonschema.ValidationError as error:
            where = ".".join(str(part) for part in error.absolute_path)
            raise ConfigError(f"{path}: {where + ': ' if where else ''}{error.message.splitlines()[0]}.") from None
        except ValueError as error:
            raise ConfigError(f"{path}: {str(error).splitlines()[0].rstrip('.')}.") from None
        file = cls(Path(path).absolute(), tree)
        file._check_guard()
        return file

    def _check_guard(self) -> None:
        """Raises ConfigError for a cluster that anyone could command."""
        for key in ("head_start_ray_commands", "worker_start_ray_commands"):
            starts = [command for command in self.tree.get(key, []) if "ray start" in command]
            if not all(f"{MODE}=token" in command for command in starts) or not starts:
                raise ConfigError(
                    f"{self.path.name}: {key}: 'ray start' must run with {MODE}=token, or anyone can run code there."
                )
        if any("--dashboard-host=0.0.0.0" in command for command in self.tree["head_start_ray_commands"]):
            raise ConfigError(
                f"{self.path.name}: head_start_ray_commands: the dashboard must stay on --dashboard-host=127.0.0.1; "
                "'ftlib cluster dashboard' opens a tunnel to it."
            )

    @property
    def node_types(self) -> list[NodeType]:
        """Every kind of node, the head first. Raises ConfigError where one has no price."""
        found = self.tree["available_node_types"]
        prices = self.tree.get("metadata", {}).get("prices", {})
        for name in prices:
            if name not in found:
                raise ConfigError(f"{self.path.name}: metadata.prices.{name}: no such node type.{nearest(name, found)}")
        head = self.tree["head_node_type"]
        return [self._node_type(name, found[name], prices) for name in sorted(found, key=lambda name: name != head)]

    def _node_type(self, name: str, section: dict[str, Any], prices: dict[str, float]) -> NodeType:
        if name not in prices:
            raise ConfigError(f"{self.path.name}: metadata.prices.{name}: say what such a node costs an hour.")
        head = name == self.tree["head_node_type"]
        most = min(section.get("max_workers", self.tree["max_workers"]), self.tree["max_workers"])
        return NodeType(
            name=name,
            least=1 if head else section.get("min_workers", 0),
            most=1 if head else most,
            price=float(prices[name]),
            spot=section.get("labels", {}).get("market") == "spot",
            resources=section["resources"],
        )

    @property
    def currency(self) -> str:
        return str(self.tree.get("metadata", {}).get("currency", "USD"))

    @property
    def hourly(self) -> tuple[float, float]:
        """What an hour costs at the least, and at the most that `max_workers` lets all types together be."""
        head, *workers = self.node_types
        least = head.price + sum(node.least * node.price for node in workers)
        most, room = least, self.tree["max_workers"] - sum(node.least for node in workers)
        for node in sorted(workers, key=lambda node: -node.price):
            more = min(node.most - node.least, room)
            most, room = most + more * node.price, room - more
        return least, most

    def ray(self, command: str, *arguments: str) -> None:
        """Runs `ray COMMAND FILE ...` as Ray's own program. Raises FtlibError when it fails."""
        self._check_sdk()
        line = [sys.executable, "-m", "ray.scripts.scripts", command, self.path.name, *arguments]
        token = {MODE: "token"}
        # Local paths of file_mounts are relative to the folder of the file.
        done = subprocess.run(line, cwd=self.path.parent, env={**os.environ, **token}, check=False)
        if done.returncode:
            raise FtlibError(f"'ray {command} {self.path.name}' failed with status {done.returncode}: see above.")

    def up(self, arguments: Sequence[str] = ()) -> None:
        """Starts or updates the cluster, with this user's token."""
        ensure_token()
        self.ray("up", *arguments)

    def _check_sdk(self) -> None:
        module, package = SDK.get(self.tree["provider"]["type"], (None, None))
        if module is not None and find_spec(module) is None:
            raise FtlibError(
                f"provider.type is '{self.tree['provider']['type']}', which Ray asks through {package}: pip install "
                f"{package}."
            )
