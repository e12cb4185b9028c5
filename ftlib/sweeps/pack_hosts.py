"""The hosts of a run: as many as there is work for, a new one for each that is lost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray

from ftlib.cluster import nodes
from ftlib.errors import FtlibError
from ftlib.sweeps.pack_host import Opening

WITHOUT_PACKS = "run the experiment again with scale.engine: trainer"
ANOTHER_WAITS = "another sweep waits for its share of the cluster"
DEATHS = 5  # of hosts in a row that have not loaded the base, before the sweep is given up
NEVER_RAN = "never ran"  # Ray's words: it waited for room in the queue of a machine that is lost, and died of that
PAUSE_SECONDS = 1.0  # after each of them, before the next: what kills them may be a cluster that is just changing
Tell = Callable[..., None]  # an event and its details


@dataclass(eq=False)
class OpenHost:
    """One host. It has no slots until it has loaded the base (`opened`), and gives out none once it is `leaving`."""

    handle: Any
    opened: Any
    ends: Any  # a call that never returns: it fails when the process is gone
    width: int = 0
    node: str | None = None
    number: int = 0  # in the order of opening, in this driver
    leaving: str | None = None  # why
    machine_gone: bool = False  # known once the host is lost
    tenants: set[str] = field(default_factory=set)

    @property
    def free(self) -> int:
        return 0 if self.leaving else self.width - len(self.tenants)


class Hosts:
    """Opens hosts, hands out their slots, and opens others for those that are lost or about to be.

    `most` bounds their number. A host that the cluster has no room for waits, and an autoscaler sees it waiting.
    """

    def __init__(self, new: Callable[[], Any], opening: Opening, most: int, tell: Tell) -> None:
        self.new, self.opening, self.most, self.tell = new, opening, most, tell
        self.open_hosts: list[OpenHost] = []
        self.opened = self.died = 0  # hosts that have loaded the base; and in a row, that died before
        self.paused_until = 0.0
        self.wanted = 1

    def open(self, handle: Any, opening: Opening) -> OpenHost:
        """Lets a host load the base; it joins when it has."""
        host = OpenHost(handle, handle.open.remote(opening), handle.ends.remote())
        self.open_hosts.append(host)
        return host

    def open_beside(self, handles: list[Any], number: int) -> None:
        """So many hosts open beside the first, while it loads the base: those of `handles`, and new ones."""
        for handle in [*handles, *(self.new() for _ in range(number - len(handles)))]:
            self.open(handle, self.opening)

    def open_first(self, handle: Any, opening: Opening) -> dict[str, Any]:
        """Waits until one host has loaded the base, another where that one dies; what it says of itself.

        Raises FtlibError where the base holds no pack, or where hosts die whatever machine they are on.
        """
        while True:
            host = self.open(handle, opening)
            try:
                said: dict[str, Any] = ray.get(host.opened)
            except ray.exceptions.RayActorError as error:
                self.lose(host, str(error))
                time.sleep(max(0.0, self.paused_until - time.monotonic()))
                handle = self.new()
            else:
                return said

    @property
    def slots(self) -> int:
        """Slots that trials live in or may live in."""
        return sum(host.width for host in self.open_hosts if not host.leaving)

    @property
    def loaded(self) -> list[OpenHost]:
        """Those that trials live in or may live in, the oldest first."""
        return [host for host in self.open_hosts if host.width and not host.leaving]

    @property
    def free(self) -> int:
        return sum(host.free for host in self.open_hosts)

    @property
    def futures(self) -> list[Any]:
        """The Ray futures for which Tune should wake up."""
        return [host.ends if host.width else host.opened for host in self.open_hosts if not host.leaving]

    def take(self) -> OpenHost:
        """The host with the most free slots; its caller becomes a tenant."""
        return max(self.open_hosts, key=lambda host: host.free)

    def look(self) -> None:
        """Notes who has opened and who died. Raises FtlibError when a host cannot hold a pack and none is left."""
        for host in list(self.open_hosts):
            self._look_at(host)

    def fit(self, trials: int, limit: int | None = None, moving: bool = False) -> None:
        """As many hosts as `trials` that have not ended can use: new ones for those that are lost, idle ones away.

        One whose neighbour on the same machine has several trials stays idle until it gets some of them (`even_out`);
        while they are `moving`, none goes.
        Of more than `limit`, the newest are left, their trials saved where they stand.
        """
        staying = [host for host in self.open_hosts if not host.leaving]
        width = max((host.width for host in staying), default=0) or self.opening.fixed or self.opening.most
        self.wanted = min(self.most, math.ceil(trials / width))
        wanted = self.wanted if limit is None else min(self.wanted, limit)
        for _ in range(wanted - len(staying) if time.monotonic() >= self.paused_until else 0):
            self.open(self.new(), self.opening)
        idle = [host for host in staying if not host.tenants and not moving]
        if limit is None:
            idle = [host for host in idle if not self._can_help(host)]
        idle.sort(key=lambda host: host.width)  # those that are still loading, or waiting for a machine, first
        for host in idle[: max(0, len(staying) - max(wanted, 1))]:
            self._end(host, "no trial is left for it" if limit is None else ANOTHER_WAITS)
        for host in self.loaded[limit:] if limit is not None else []:
            self._leave(host, ANOTHER_WAITS)

    def _can_help(self, host: OpenHost) -> bool:
        return any(other.node == host.node and len(other.tenants) > 1 for other in self.loaded)

    def _look_at(self, host: OpenHost) -> None:
        if self._done(host.ends):
            self.lose(host, _why_it_ended(host))
        elif not host.width and self._done(host.opened):
            try:
                opened = ray.get(host.opened)
            except ray.exceptions.RayActorError as error:
                self.lose(host, str(error))
            except FtlibError as error:
                self._refused(host, str(getattr(error, "cause", error)))
            else:
                host.width, host.node = opened["slots"], opened["node"]
                self.opened, self.died = self.opened + 1, 0
                host.number = self.opened
                age = round(time.time() - opened["since"], 3)
                said = {"width": host.width, "age_s": age, "isolation": opened["isolation"]}
                self.tell("host_opened", host=host.number, node=host.node, **said)
        elif host.leaving and not host.tenants:
            self._end(host, host.leaving)

    @staticmethod
    def _done(future: Any) -> bool:
        return bool(ray.wait([future], timeout=0)[0])

    def _refused(self, host: OpenHost, why: str) -> None:
        self.tell("host_refused", why=why)
        self._kill(host)
        self.most = len(self.open_hosts)  # another one would fare no better
        if not self.open_hosts:
            raise FtlibError(f"{why}: {WITHOUT_PACKS}.")

    def lose(self, host: OpenHost, why: str = "") -> None:
        """Notes that the process of a host, or its machine, is gone. Raises FtlibError where one host after another is
        lost while it loads."""
        if host not in self.open_hosts:
            return
        host.machine_gone = host.node is not None and not nodes.answers(host.node)
        line = why.strip().splitlines()[-1].strip() if why.strip() else None
        self.tell("host_lost", host=host.number, node=host.node, trials=len(host.tenants), why=line)
        self._kill(host)  # one that is only out of reach must not go on writing
        if not host.width and NEVER_RAN not in why:
            self.died += 1
            self.paused_until = time.monotonic() + PAUSE_SECONDS * self.died
        if self.died >= DEATHS:
            raise FtlibError(
                f"{DEATHS} hosts in a row died while they loaded the base ({line}): is memory enough for it?"
            )

    def vacate(self, node: str, why: str) -> None:
        """The machine is about to go: its trials are saved where they stand and sent away, and no other comes."""
        for host in self.open_hosts:
            if host.node == node and not host.leaving:
                self._leave(host, why)

    @staticmethod
    def _leave(host: OpenHost, why: str) -> None:
        host.leaving = why
        host.handle.evacuate.remote(why)

    def _end(self, host: OpenHost, why: str) -> None:
        if host.width:  # else it never opened
            self.tell("host_closed", host=host.number, node=host.node, why=why)
        self._kill(host)

    def _kill(self, host: OpenHost) -> None:
        self.open_hosts.remove(host)
        ray.kill(host.handle)

    def close(self) -> None:
        """Ends all hosts of the run."""
        for host in list(self.open_hosts):
            self._end(host, "the sweep is over")


def _why_it_ended(host: OpenHost) -> str:
    """What Ray says of a host that is gone."""
    try:
        ray.get(host.ends)
    except Exception as error:
        return str(error)
    return ""
