"""Where Ray Tune asks for an actor of its own for each trial, the trial becomes a resident of a pack's host.

Tune makes an actor by `ray.remote(trainable).options(...).remote(**arguments)` and calls `handle.method.remote(...)`.
`_Residence` and `_Resident` answer to that, so Tune conducts trials in packs without knowing it. The one thing of
Tune's that is not public is where it keeps its actor classes (`tune_controller._ActorClassCache`); where a version of
Ray has none, this fails with a sentence, and `sweep.pack: off` trains the same trials one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray.actor import ActorClass
from ray.tune.execution import tune_controller

from ftlib.errors import FtlibError
from ftlib.pack.host import Opening
from ftlib.pack.trainable import Slot

CACHE = "_ActorClassCache"


class Hosts:
    """The hosts of a run, each with `widths` slots. A new trial goes where most are free."""

    def __init__(self, handles: Sequence[Any], openings: Sequence[Opening], widths: Sequence[int]) -> None:
        self.handles, self.openings, self.widths = list(handles), list(openings), list(widths)
        self.residents: list[set[str]] = [set() for _ in handles]
        self.keys = itertools.count()

    def take(self, trainable: type, arguments: dict[str, Any]) -> _Resident:
        number = max(range(len(self.handles)), key=lambda each: self.widths[each] - len(self.residents[each]))
        key = f"resident-{next(self.keys)}"
        self.residents[number].add(key)
        started = self.handles[number].start.remote(key, trainable, arguments, self.openings[number])
        return _Resident(self, number, key, started)


class _Residence(ActorClass):
    """Stands where Tune expects `ray.remote(trainable)`. Placement is the hosts', so options mean nothing."""

    def __init__(self, hosts: Hosts, trainable: type) -> None:
        self._hosts, self._trainable = hosts, trainable

    def options(self, **options: Any) -> _Residence:
        return self

    def remote(self, **arguments: Any) -> _Resident:
        return self._hosts.take(self._trainable, arguments)


class _Resident:
    """Stands where Tune expects an actor's handle."""

    def __init__(self, hosts: Hosts, number: int, key: str, started: Any) -> None:
        self._hosts, self._number, self._key, self._started = hosts, number, key, started

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, name)

    def _call(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "__ray_ready__":
            return self._started
        host = self._hosts.handles[self._number]
        if name in ("stop", "__ray_terminate__"):
            self._hosts.residents[self._number].discard(self._key)
            return host.call.remote(self._key, "stop", (), {})
        return host.call.remote(self._key, name, args, keywords)


class _Method:
    def __init__(self, resident: _Resident, name: str) -> None:
        self._resident, self._name = resident, name

    def remote(self, *args: Any, **keywords: Any) -> Any:
        return self._resident._call(self._name, args, keywords)


@contextmanager
def residing_in(hosts: Hosts | None) -> Iterator[None]:
    """Within, trials that are slots live in `hosts`; None changes nothing."""
    if hosts is None:
        yield
        return
    if not hasattr(tune_controller, CACHE):
        raise FtlibError(f"Ray {ray.__version__} makes its trials in another way than packs know: use sweep.pack: off.")
    theirs = getattr(tune_controller, CACHE)

    residence = partial(_Residence, hosts)

    class Cache(theirs):  # type: ignore[misc, valid-type]
        def get(self, trainable_cls: type) -> Any:
            slot = isinstance(trainable_cls, type) and issubclass(trainable_cls, Slot)
            return residence(trainable_cls) if slot else super().get(trainable_cls)

    setattr(tune_controller, CACHE, Cache)
    try:
        yield
    finally:
        setattr(tune_controller, CACHE, theirs)
