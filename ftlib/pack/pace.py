"""How many trials one pass computes, found while they train: no step is made only to be timed.

Ticks of the width in use take turns with ticks of twice and of half as many. A width that computes more places a second
takes over. It changes no number of a trial (`docs/packs.md`), so nothing is made again.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

TICKS = 2  # of each of two widths that are compared; the faster one counts: the other was the first, or disturbed
BETTER = 1.03  # times as many places a second make another width worth it
SHARE = 0.02  # of the ticks to go that may be tries: one takes at most twice as long as a tick of the width in use

Settled = Callable[[int, dict[int, float]], None]


@dataclass
class Pace:
    """`width` is the best known so far; no width beyond `most` is tried. The first tick shows how many places batches
    have, what they share left out: `busy` of them keep the machine busy (0: nobody knows). `settled` hears once which
    width stays, and the places a second of each that was tried."""

    width: int
    most: int
    busy: int = 0
    settled: Settled = lambda width, rates: None
    rates: dict[int, float] = field(default_factory=dict, init=False)  # width -> places a second, of its best tick

    def __post_init__(self) -> None:
        self._asked = self.width
        self._ticks: dict[int, list[float]] = defaultdict(list)
        self._others = deque(other for other in (2 * self.width, self.width // 2) if 0 < other <= self.most)

    def after(self, wide: int, places: list[int], seconds: float, to_go: int) -> int:
        """The width of the next tick, after one whose widest pass had `wide` trials. `places` are those of each trial's
        batch; `to_go` is how many ticks are left to the trials of now."""
        if self.busy:
            self.width = alike(self.most, self.busy * len(places) / sum(places))
            self.busy = 0
            self.__post_init__()
            return self.width
        if self._others and wide == self._asked:
            self._ticks[wide].append(sum(places) / seconds)
            if len(self._ticks[self._others[0]]) == TICKS:
                self._decide(self._others.popleft())
        self._asked = self._next(to_go)
        return self._asked

    def _next(self, to_go: int) -> int:
        if not self._others or to_go * SHARE < TICKS:  # too little is left to win back what tries may cost
            return self.width
        other = self._others[0]
        return other if len(self._ticks[self.width]) > len(self._ticks[other]) else self.width

    def _decide(self, other: int) -> None:
        before = self.width
        self.rates |= {wide: max(rates) for wide, rates in self._ticks.items()}
        self._ticks.clear()
        if self.rates[other] > BETTER * self.rates[before]:
            self.width = other
            further = 2 * other if other > before else other // 2
            self._others = deque([further] if 0 < further <= self.most else [])
        if not self._others:
            self.settled(self.width, self.rates)


def alike(trials: int, busy: float) -> int:
    """How many trials a pass computes where `busy` of them keep the machine busy: passes have like sizes."""
    return math.ceil(trials / max(1, round(trials / busy)))
