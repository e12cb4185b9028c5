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

ANOTHER_WAITS = "another sweep waits for its share of the cluster"
DEATHS = 5  # of hosts in a row that have not loaded the base, before the sweep is given up
NEVER_RAN = "never ran"  # Ray's words: it waited for room in the queue of a machine that is lost, and died of that
PAUSE_SECONDS = 1.0  # after each of them, before the next: what kills them may be a cluster that is just changing
Tell = Callable[..., None]  # an event and its details


@dataclass(eq=False)
class Place:
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
        self.places: list[Place] = []
        self.opened = self.died = 0  # hosts that have loaded the base; and in a row, that died before
        self.paused_until = 0.0
        self.wanted = 1

    def open(self, handle: Any, opening: Opening) -> Place:
        """Lets a host load the base; it joins when it has."""
        place = Place(handle, handle.open.remote(opening), handle.ends.remote())
        self.places.append(place)
        return place

    def open_first(self, handle: Any, opening: Opening) -> dict[str, Any]:
        """Waits until one host has loaded the base, another where that one dies; what it says of itself.

        Raises FtlibError where the base holds no pack, or where hosts die whatever machine they are on.
        """
        while True:
            place = self.open(handle, opening)
            try:
                said: dict[str, Any] = ray.get(place.opened)
            except ray.exceptions.RayActorError as error:
                self.lose(place, str(error))
                time.sleep(max(0.0, self.paused_until - time.monotonic()))
                handle = self.new()
            else:
                return said

    @property
    def slots(self) -> int:
        """Slots that trials live in or may live in."""
        return sum(place.width for place in self.places if not place.leaving)

    @property
    def loaded(self) -> list[Place]:
        """Those that trials live in or may live in, the oldest first."""
        return [place for place in self.places if place.width and not place.leaving]

    @property
    def free(self) -> int:
        return sum(place.free for place in self.places)

    @property
    def futures(self) -> list[Any]:
        """What is worth waking up for."""
        return [place.ends if place.width else place.opened for place in self.places if not place.leaving]

    def take(self) -> Place:
        """The place with the most free slots; its caller becomes a tenant."""
        return max(self.places, key=lambda place: place.free)

    def look(self) -> None:
        """Notes who has opened and who died. Raises FtlibError when a host cannot hold a pack and none is left."""
        for place in list(self.places):
            self._look_at(place)

    def fit(self, trials: int, limit: int | None = None) -> None:
        """As many hosts as `trials` that have not ended can use: new ones for those that are lost, idle ones away.

        Of more than `limit`, the newest are left, their trials saved where they stand.
        """
        staying = [place for place in self.places if not place.leaving]
        width = max((place.width for place in staying), default=0) or self.opening.fixed or self.opening.most
        self.wanted = min(self.most, math.ceil(trials / width))
        wanted = self.wanted if limit is None else min(self.wanted, limit)
        for _ in range(wanted - len(staying) if time.monotonic() >= self.paused_until else 0):
            self.open(self.new(), self.opening)
        idle = [place for place in staying if not place.tenants]
        idle.sort(key=lambda place: place.width)  # those that are still loading, or waiting for a machine, first
        for place in idle[: max(0, len(staying) - max(wanted, 1))]:
            self._end(place, "no trial is left for it" if limit is None else ANOTHER_WAITS)
        for place in self.loaded[limit:] if limit is not None else []:
            self._leave(place, ANOTHER_WAITS)

    def _look_at(self, place: Place) -> None:
        if self._done(place.ends):
            self.lose(place, _why_it_ended(place))
        elif not place.width and self._done(place.opened):
            try:
                opened = ray.get(place.opened)
            except ray.exceptions.RayActorError as error:
                self.lose(place, str(error))
            except FtlibError as error:
                self._refused(place, str(getattr(error, "cause", error)))
            else:
                place.width, place.node = opened["width"], opened["node"]
                self.opened, self.died = self.opened + 1, 0
                place.number = self.opened
                age = round(time.time() - opened["since"], 3)
                said = {"width": place.width, "age_s": age, "isolation": opened["isolation"]}
                self.tell("host_opened", host=place.number, node=place.node, **said)
        elif place.leaving and not place.tenants:
            self._end(place, place.leaving)

    @staticmethod
    def _done(future: Any) -> bool:
        return bool(ray.wait([future], timeout=0)[0])

    def _refused(self, place: Place, why: str) -> None:
        self.tell("host_refused", why=why)
        self._kill(place)
        self.most = len(self.places)  # another one would fare no better
        if not self.places:
            raise FtlibError(f"sweep.pack: {why}: use sweep.pack: off.")

    def lose(self, place: Place, why: str = "") -> None:
        """The process is gone, or its machine. Raises FtlibError where that happens to one after another as they load."""
        if place not in self.places:
            return
        place.machine_gone = place.node is not None and not nodes.answers(place.node)
        line = why.strip().splitlines()[-1].strip() if why.strip() else None
        self.tell("host_lost", host=place.number, node=place.node, trials=len(place.tenants), why=line)
        self._kill(place)  # one that is only out of reach must not go on writing
        if not place.width and NEVER_RAN not in why:
            self.died += 1
            self.paused_until = time.monotonic() + PAUSE_SECONDS * self.died
        if self.died >= DEATHS:
            raise FtlibError(
                f"{DEATHS} hosts in a row died while they loaded the base ({line}): is memory enough for it?"
            )

    def vacate(self, node: str, why: str) -> None:
        """The machine is about to go: its trials are saved where they stand and sent away, and no other comes."""
        for place in self.places:
            if place.node == node and not place.leaving:
                self._leave(place, why)

    @staticmethod
    def _leave(place: Place, why: str) -> None:
        place.leaving = why
        place.handle.evacuate.remote(why)

    def _end(self, place: Place, why: str) -> None:
        if place.width:  # else it never opened
            self.tell("host_closed", host=place.number, node=place.node, why=why)
        self._kill(place)

    def _kill(self, place: Place) -> None:
        self.places.remove(place)
        ray.kill(place.handle)

    def close(self) -> None:
        """Ends all hosts."""
        for place in list(self.places):
            self._end(place, "the sweep is over")


def _why_it_ended(place: Place) -> str:
    """What Ray says of a host that is gone."""
    try:
        ray.get(place.ends)
    except Exception as error:
        return str(error)
    return ""
