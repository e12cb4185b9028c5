"""Sweeps that share a cluster. Ray serves who came first: here, who has more gives to who waits.

Each driver says in the cluster's own key-value store what its sweep has and wants. Where another has waited for a while
with less, a sweep gives back one worker at a time and asks for no other, until what both have is equal, or a worker
apart. Its trials leave as from a machine that is about to go: nothing is trained again.

Measured with a patience of 2 s on two machines (docs/log.md): a second packed sweep trains 17 s after it came; without
this module it waits for the end of the first.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from ftlib.cluster.ray_private import KeyValues
from ftlib.config import ScaleSection
from ftlib.files.repeating import repeating

PATIENCE = float(os.environ.get("FTLIB_SHARE_PATIENCE_S", "60"))  # a cluster may grow, and a given worker has to load
TELL_SECONDS = 1.0
SILENT_SECONDS = 15.0  # a sweep that was not heard of for so long is gone
CLAIMS = KeyValues(b"ftlib-shares")  # by the names of runs


@dataclass(frozen=True)
class Claim:
    """What a sweep has and wants of a resource. `unit` is what one trial or host takes. `waits` is for how many seconds
    the sweep has had too little."""

    resource: str
    unit: float
    has: float
    wants: float
    waits: float
    told: float  # when


def allowed(mine: Claim, others: Iterable[Claim], patience: float) -> float | None:
    """How much this sweep may have, where another sweep has less and waits. None where there is no limit."""
    waiting = [claim for claim in others if claim.resource == mine.resource and claim.waits > patience]
    poorest = min(waiting, key=lambda claim: claim.has, default=None)
    if poorest is None or mine.has <= poorest.has:
        return None
    fewer = mine.has - mine.unit
    return fewer if fewer >= poorest.has + poorest.unit else mine.has


class Shares:
    """The share of one sweep, in trials or in hosts of packs. The driver sets `has` and `wants`, and keeps to
    `limit`."""

    def __init__(self, run: str, scale: ScaleSection) -> None:
        self.run = run
        wanted = scale.resources_per_worker
        self.resource = "GPU" if wanted.get("GPU") else "CPU"
        self.unit = wanted.get(self.resource, 0.0) * scale.num_workers
        self.has, self.wants = 0, 1
        self.limit: int | None = None
        self._had, self._since, self._gave = 0, time.monotonic(), -PATIENCE
        self._gifts: dict[str, float] = {}  # what others had when this sweep gave

    def exchange(self) -> None:
        """Writes what this sweep has and wants, reads the claims of the others, and sets the limit."""
        mine = self._claim()
        CLAIMS.put(self.run.encode(), json.dumps(asdict(mine)).encode())
        others = {name: claim for name, claim in self._others() if self._takes(name, claim)}
        may = allowed(mine, others.values(), PATIENCE)
        now = time.monotonic()
        if may is not None and may < mine.has:
            if now - self._gave < PATIENCE:
                may = mine.has
            else:
                self._gave, self._gifts = now, {name: claim.has for name, claim in others.items()}
        self.limit = None if may is None else round(may / self.unit)

    def _claim(self) -> Claim:
        has, now = self.has, time.monotonic()
        if has != self._had or has >= self.wants:
            self._had, self._since = has, now
        amounts = (has * self.unit, self.wants * self.unit)
        return Claim(self.resource, self.unit, *amounts, waits=now - self._since, told=time.time())

    def _takes(self, name: str, claim: Claim) -> bool:
        """Whether another sweep can use what is given. It cannot where it took nothing of the last gift: then it waits
        for something else."""
        if self._gifts.get(name) != claim.has:
            self._gifts.pop(name, None)
            return True
        return time.monotonic() - self._gave < PATIENCE

    def _others(self) -> Iterator[tuple[str, Claim]]:
        for name in CLAIMS.names():
            told = CLAIMS.get(name)
            if told is not None and name.decode() != self.run:
                claim = Claim(**json.loads(told))
                if time.time() - claim.told < SILENT_SECONDS:
                    yield name.decode(), claim


@contextmanager
def shared(shares: Shares) -> Iterator[Shares]:
    """Within, the sweep has its part. One whose workers take nothing has none."""
    if not shares.unit:
        yield shares
        return

    def exchange() -> None:
        try:
            shares.exchange()
        except Exception:  # the cluster does not answer: without word of others, as if there were none
            shares.limit = None

    try:
        with repeating(exchange, TELL_SECONDS, "shares", patience=60):
            yield shares
    finally:
        with suppress(Exception):  # it falls silent, then
            CLAIMS.remove(shares.run.encode())


__all__ = ["Claim", "Shares", "allowed", "shared"]
