"""`split`: which rows are for the test, for evaluation and for training.

Rows that stay together are a cluster: those whose texts are the same, and those of one group. A cluster's number is
drawn from its content, so a cluster keeps its side, mostly, when the data grows. Each value of `stratify` gives its
share, as scikit-learn's `train_test_split` has it; what it gives is less where the next cluster is too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlib.config.data import printed
from ftlib.config.recipe.dividing import SplitStep
from ftlib.curate.draws import drawn, hash_of, hashes_of
from ftlib.curate.exact_duplicates import digests
from ftlib.curate.rows import SPLIT, Row, text_of
from ftlib.curate.signs import begins, column
from ftlib.curate.step import Context, Result, WholeStep
from ftlib.data.split import quotas
from ftlib.errors import DataError, InputError

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = ("train", "test", "eval")
NONE = "\0"  # the value of rows without the field


def sign(rows: Sequence[Row], settings: SplitStep, context: Context) -> pa.Table:
    """Of each row the hashes of its texts, of its group and of its stratum."""
    import pyarrow as pa

    texts = (text_of(row, settings.same, but=settings.stratify) for row in rows)
    columns: dict[str, Any] = {"same": digests(texts)}
    for name in ("group", "stratify"):
        if (field := getattr(settings, name)) is not None:
            columns[name] = hashes_of(NONE if row.get(field) is None else printed(row[field]) for row in rows)
    return pa.table(columns)


def decide(signs: Sequence[pa.Table], settings: SplitStep, context: Context) -> list[pa.Table]:
    """The side of each row, as its number in SIDES. Raises InputError where no row has a field that is named, and
    DataError where too few rows are there for a part that is asked for."""
    import pyarrow as pa

    same = column(signs, "same")
    strata = _field(signs, settings, context, "stratify", len(same))
    cluster = clusters(same, _field(signs, settings, context, "group", 0) if settings.group else None)
    side = np.zeros(len(same), np.int8)
    count = {name: round(getattr(settings, name) * len(same)) for name in SIDES[1:] if getattr(settings, name)}
    for name, wanted in count.items():
        chosen = _chosen(cluster, strata, side == 0, max(1, wanted), same, context.draw(name))
        side[chosen] = SIDES.index(name)
        if not len(chosen):
            raise DataError(
                f"steps: {context.key}: no rows that stay together fit into {name} ({wanted} of {len(same)} rows): ask "
                "for a larger share, or for no group."
            )
    edges = begins(signs)
    return [pa.table({"side": side[first:last]}) for first, last in pairwise(edges)]


def apply(rows: Sequence[Row], verdict: pa.Table, settings: SplitStep, context: Context) -> Result:
    """Says of each row where it goes."""
    sides = verdict["side"].to_pylist()
    return Result([{**row, SPLIT: SIDES[side]} for row, side in zip(rows, sides, strict=True)])


def clusters(same: Any, group: Any = None) -> Any:
    """The number of each row's cluster: rows with the same texts, and rows of one group, are together, also through
    others."""
    _, text = np.unique(same, return_inverse=True)
    if group is None:
        return text
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    known, of = np.unique(group, return_inverse=True)
    alone = known[of] == hash_of(NONE)  # rows without a group are not one group
    of = np.where(alone, len(known) + text, of)
    size = len(known) + 2 * (int(text.max()) + 1)
    edges = coo_array((np.ones(len(of), np.int8), (of, len(known) + text)), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    return np.unique(component[of], return_inverse=True)[1]


def _field(signs: Sequence[pa.Table], settings: SplitStep, context: Context, name: str, rows: int) -> Any:
    """The hashes of a field that the settings name; zeros without one."""
    if getattr(settings, name) is None:
        return np.zeros(rows, np.uint64)
    values = column(signs, name)
    if (values == hash_of(NONE)).all():
        raise InputError(f"steps: {context.key}.{name}: no row has the field '{getattr(settings, name)}'.")
    return values


def _chosen(cluster: Any, strata: Any, free: Any, wanted: int, same: Any, seed: int) -> Any:
    """Rows for one side: of each stratum as many of its free clusters, whole, as fit into its share."""
    rows = np.flatnonzero(free)
    own, first, of, sizes = np.unique(cluster[rows], return_index=True, return_inverse=True, return_counts=True)
    lowest = np.full(len(own), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, of, same[rows])  # a cluster's name is the lowest hash of its texts
    number, stratum = drawn(lowest, seed), strata[rows][first]
    taken = np.zeros(len(own), bool)
    known = {str(value): np.flatnonzero(stratum == value) for value in np.unique(stratum)}
    shares = quotas({name: int(sizes[members].sum()) for name, members in known.items()}, wanted)
    for name, quota in shares.items():
        members = known[name][np.argsort(number[known[name]], kind="stable")]
        taken[_fitting(members, sizes, quota)] = True
    return rows[taken[of]]


def _fitting(members: Any, sizes: Any, quota: int) -> list[int]:
    """The first clusters that fit; one at least stays behind."""
    found: list[int] = []
    room = quota
    for member in members:
        if len(found) + 1 == len(members) or not room:
            break
        if sizes[member] <= room:
            found.append(int(member))
            room -= int(sizes[member])
    return found


STEP = WholeStep(sign, decide, apply)
