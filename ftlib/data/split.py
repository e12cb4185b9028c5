"""Which rows are held out for evaluation.

What is asked twice stays on one side, so that nothing that was trained on is asked again; so do rows of one origin,
where a column says which those are. Where rows have labels, each label gives its share (stratified, as scikit-learn's
`train_test_split`).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence


def held_out_rows(
    asked: Sequence[Hashable],
    said: Sequence[Hashable],
    labels: Sequence[str] | None,
    share: float,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> list[int]:
    """The numbers of the rows to hold out, in order: `share` of them, and at least 1 of 2 or more rows.

    `asked` is what each row asks and `said` the whole of it, both without regard to case and space. Rows that ask the
    same stay together; where the data holds too few questions for that, rows that are the same do; and where all are
    the same, none. `labels` has the label of each row. `groups` has what rows of one origin share: they are never
    parted, and where no group is small enough for the share, no row is held out.
    """
    count = len(asked)
    wanted = wanted_rows(count, share)
    rows = range(count)
    ties = (asked, said, rows) if groups is None else (_tied(groups, asked), _tied(groups, said), groups)
    for together, strata in (*((tie, labels) for tie in ties), (ties[-1], None)):
        chosen = _chosen(together, strata, wanted, seed)
        if 2 * len(chosen) >= wanted:
            break
    return sorted(chosen)


def wanted_rows(count: int, share: float) -> int:
    """How many of the rows a share is: at least 1, and not all."""
    return min(max(1, round(count * share)), count - 1)


def _tied(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[int]:
    """A key for each row: rows that are alike in one of the two have the same, and so have those alike with them."""
    parent = list(range(len(one)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for keys in (one, other):
        first: dict[Hashable, int] = {}
        for row, key in enumerate(keys):
            parent[root(row)] = root(first.setdefault(key, row))
    return [root(row) for row in range(len(one))]


def _chosen(together: Sequence[Hashable], labels: Sequence[str] | None, wanted: int, seed: int) -> list[int]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(together):
        groups[key].append(row)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups.values():
        strata[labels[group[0]] if labels else ""].append(group)
    drawn = random.Random(seed)
    chosen = []
    for label, quota in quotas({label: _size(stratum) for label, stratum in strata.items()}, wanted).items():
        chosen += _taken(strata[label], quota, drawn)
    return chosen


def quotas(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """How many rows each label gives: its share, the rests going to the largest; at least 1 where all can have one, and
    never all it has."""
    total = sum(sizes.values())
    able = [label for label, size in sizes.items() if size > 1]
    least = 1 if len(able) <= wanted else 0
    shares = {label: sizes[label] * wanted / total for label in able}
    taken = {label: min(max(int(share), least), sizes[label] - 1) for label, share in shares.items()}
    by_rest = sorted(able, key=lambda label: taken[label] - shares[label])
    for label in by_rest:
        if sum(taken.values()) < wanted and taken[label] < sizes[label] - 1:
            taken[label] += 1
    return taken


def _taken(groups: list[list[int]], quota: int, drawn: random.Random) -> list[int]:
    """Whole groups, drawn one by one as far as they fit; one group at least stays behind."""
    rows: list[int] = []
    left = len(groups)
    first = drawn.sample(range(len(groups)), min(quota, len(groups) - 1))
    others = [number for number in range(len(groups)) if number not in set(first)]
    drawn.shuffle(others)
    for number in (*first, *others):
        if left > 1 and len(rows) + len(groups[number]) <= quota:
            rows += groups[number]
            left -= 1
    return rows


def _size(groups: list[list[int]]) -> int:
    return sum(map(len, groups))
