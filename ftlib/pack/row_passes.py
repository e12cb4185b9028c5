"""Which rows are read in one pass where nothing is trained: many, so that what they begin with is computed seldom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ftlib.methods.pack_losses import Tokens
from ftlib.pack.prefix_trie import common, in_order

# Of one trial in one pass. Who else is in the pack plays no part: a row meets the same rows in any company.
PLACES = 2**12
KEYS = 2**14  # tokens that attention looks at: a shared beginning counts for each sequence
OUTPUTS = 2**25  # numbers: all classes at all picked places
UNEVEN = (1.02, 1.08, 1.15, 1.25)  # how much more than its share a pass of several may have


def passes(rows: Sequence[Sequence[Tokens]], least: int, classes: int, places: int = PLACES) -> list[list[int]]:
    """Numbers of rows, those that begin alike side by side: `least` a pass, and as many more as `places` hold.

    `rows` has the sequences of each row; `classes` is how many outputs a picked place has.
    """
    return [one.rows for one in _planned(rows, least, classes, places)]


def side_by_side(
    rows: Sequence[Sequence[Tokens]], least: int, classes: int, threads: int, places: int = PLACES
) -> list[list[int]]:
    """The same for so many threads, which together have room for `places`: as many passes for each, of like sizes. Two
    thirds of the rows for one thread and a third for the other take as long as four thirds."""
    room = places // threads
    plan = _planned(rows, least, classes, room)
    count = math.ceil(len(plan) / threads) * threads
    alike = sum(one.places for one in plan) / count
    for bound in (math.ceil(alike * more) for more in UNEVEN if threads > 1):
        evened = _planned(rows, least, classes, min(bound, room))
        if len(evened) <= count:
            plan = evened
            break
    return [one.rows for one in plan]


def _planned(rows: Sequence[Sequence[Tokens]], least: int, classes: int, places: int) -> list[_Pass]:
    found: list[_Pass] = [_Pass()]
    for number in in_order([sequences[0].ids for sequences in rows]):
        longer = found[-1].with_row(number, rows[number])
        if len(longer.rows) <= least or longer.fits(classes, places):
            found[-1] = longer
        else:
            found.append(_Pass().with_row(number, rows[number]))
    return found


@dataclass(frozen=True)
class _Pass:
    rows: list[int] = field(default_factory=list)
    latest: np.ndarray = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64)
    )  # the first sequence of its last row
    places: int = 0
    keys: int = 0
    picked: int = 0

    def with_row(self, number: int, sequences: Sequence[Tokens]) -> _Pass:
        """What is new of a row: its first sequence beside that of the row before, the others beside its first."""
        first = sequences[0].ids
        before = [self.latest, *[first] * (len(sequences) - 1)]
        new = [len(one.ids) - common(one.ids, other) for one, other in zip(sequences, before, strict=True)]
        return _Pass(
            [*self.rows, number],
            first,
            self.places + sum(new),
            self.keys + sum(len(one.ids) for one in sequences),
            self.picked + sum(len(one.picked) for one in sequences),
        )

    def fits(self, classes: int, places: int) -> bool:
        return self.places <= places and self.keys <= KEYS and self.picked * classes <= OUTPUTS
