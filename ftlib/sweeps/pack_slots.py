"""Where Ray Tune asks for resources and an actor for each trial, a trial of a pack gets a slot of a host.

Tune requests resources, waits until they are ready, makes an actor with them and calls `handle.method.remote(...)`.
`Slots` is a resource manager (Ray's own interface for it) whose resource is a free slot; what it gives out makes a
resident of the slot's host where Tune makes an actor. So a trial waits for a slot as it would wait for a GPU, whichever
host has one first, and costs no process and no placement group.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ray
from ray.air.execution.resources.request import AcquiredResources, ResourceRequest
from ray.air.execution.resources.resource_manager import ResourceManager

from ftlib.sweeps.pack_hosts import Hosts, OpenHost
from ftlib.sweeps.packed_trial import Slot
from ftlib.sweeps.tune_private import OpenResources

KEYS = itertools.count()


@dataclass
class Rented(OpenResources):
    """A slot of a host, and the key of who lives in it."""

    resource_request: ResourceRequest
    host: OpenHost
    key: str

    def annotate_remote_entities(self, entities: list[Any]) -> list[Any]:
        """What Tune calls in order to have an actor."""
        return [_Residence(self)]


class Slots(ResourceManager):
    """Tune's resources, where they are the slots of hosts."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.requested: Counter[ResourceRequest] = Counter()

    def request_resources(self, resource_request: ResourceRequest) -> None:
        self.requested[resource_request] += 1

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        self.requested[resource_request] -= 1

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        return self.requested[resource_request] > 0 and self.hosts.free > 0

    def acquire_resources(self, resource_request: ResourceRequest) -> Rented | None:
        if not self.has_resources_ready(resource_request):
            return None
        self.requested[resource_request] -= 1
        host, key = self.hosts.take(), f"resident-{next(KEYS)}"
        host.tenants.add(key)
        return Rented(resource_request, host, key)

    def free_resources(self, acquired_resource: AcquiredResources) -> None:
        assert isinstance(acquired_resource, Rented)
        acquired_resource.host.tenants.discard(acquired_resource.key)

    def get_resource_futures(self) -> list[Any]:
        """Wakes Tune when a host has loaded or died."""
        return self.hosts.futures

    def update_state(self) -> None:
        """After it woke: what it heard is taken note of, and not heard again."""
        self.hosts.look()

    def clear(self) -> None:
        self.requested.clear()


class _Residence:
    """Stands where Tune has `ray.remote(trainable).options(...)`."""

    def __init__(self, rented: Rented) -> None:
        self._rented = rented

    def remote(self, **arguments: Any) -> Resident:
        return Resident(self._rented, arguments)


class Resident:
    """Stands where Tune has an actor's handle."""

    def __init__(self, rented: Rented, arguments: dict[str, Any]) -> None:
        self.host, self._key = rented.host, rented.key
        self._started = self.host.handle.start.remote(self._key, Slot, arguments)

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, name)

    def _call(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "__ray_ready__":
            return self._started
        if name == "__ray_terminate__":
            name = "stop"
        return self.host.handle.call.remote(self._key, name, args, keywords)


class _Method:
    def __init__(self, resident: Resident, name: str) -> None:
        self._resident, self._name = resident, name

    def remote(self, *args: Any, **keywords: Any) -> Any:
        return self._resident._call(self._name, args, keywords)


def host_of(actor: Any) -> OpenHost | None:
    """The host of a trial's actor, where it is a resident."""
    return actor.host if isinstance(actor, Resident) else None


def kill(actor: Any) -> None:
    """Ends a trial's process by force: a resident's is its host's."""
    ray.kill(actor.host.handle if isinstance(actor, Resident) else actor)
