"""`dedupe`: of rows that say the same, one stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlib.config.recipe.looking import DedupeStep
from ftlib.curate.exact_duplicates import digests
from ftlib.curate.near_duplicates import Signatures, groups, signatures
from ftlib.curate.rows import FROM, Row, text_of
from ftlib.curate.signs import Rows, column, dropping, texts_at
from ftlib.curate.step import Context, WholeStep, drop_told

if TYPE_CHECKING:
    import pyarrow as pa


MATRICES = ("bands", "sketch")  # of signatures, with a row for each row


def sign(rows: Sequence[Row], settings: DedupeStep, context: Context) -> pa.Table:
    """Of each row the hash of its texts, their length, and where it comes from."""
    import pyarrow as pa

    texts = [text_of(row, settings.fields) for row in rows]
    columns: dict[str, Any] = {
        "same": digests(texts),
        "length": np.fromiter(map(len, texts), np.int64),
        FROM: pa.array([row[FROM] for row in rows], pa.string()),
    }
    if settings.near is not None:
        columns |= _near_columns(signatures(texts))
    return pa.table(columns)


def decide(signs: Sequence[pa.Table], settings: DedupeStep, context: Context) -> list[pa.Table]:
    """The rows that go, each with the row that stays in its place."""
    same, rows = column(signs, "same"), np.arange(sum(table.num_rows for table in signs))
    length = column(signs, "length") if settings.keep == "longest" else None
    stays = staying(same, length) if settings.exact else rows
    exact = stays != rows
    if settings.near is not None:
        stays = staying(groups(joined(signs), settings.near), length)
        exact &= same == same[stays]
    goes = np.flatnonzero(stays != rows)
    details = [f"like {place}" for place in texts_at(signs, FROM, stays[goes])]
    return dropping(signs, goes, ["exact" if exact[row] else "near" for row in goes], details)


def _near_columns(found: Signatures) -> dict[str, Any]:
    """Signatures as columns: a list of one length for each row of a matrix, and the pairs of each row."""
    import pyarrow as pa

    matrices = {name: getattr(found, name) for name in MATRICES}
    columns = {name: pa.FixedSizeListArray.from_arrays(one.ravel(), one.shape[1]) for name, one in matrices.items()}
    return {**columns, "pairs": pa.LargeListArray.from_arrays(found.ends, found.pairs)}


def joined(signs: Sequence[pa.Table]) -> Signatures:
    """The signatures of all blocks."""
    parts = []
    for table in filter(len, signs):  # a block without rows has nothing to say
        found = {name: table[name].combine_chunks() for name in (*MATRICES, "pairs")}
        matrices = {name: found[name].values.to_numpy().reshape(len(table), -1) for name in MATRICES}
        pairs = found["pairs"]
        parts.append(Signatures(**matrices, pairs=pairs.values.to_numpy(), ends=pairs.offsets.to_numpy()))
    return Signatures.joined(parts)


def staying(groups: Any, length: Any = None) -> Rows:
    """For each row the row of its group that stays: the first one, or of the longest ones the first."""
    order = np.arange(len(groups)) if length is None else np.argsort(-length, kind="stable")
    _, first, group = np.unique(groups[order], return_index=True, return_inverse=True)
    stays = np.empty(len(groups), np.int64)
    stays[order] = order[first][group]
    return stays


STEP = WholeStep(sign, decide, apply=drop_told)
