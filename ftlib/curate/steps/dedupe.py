"""`dedupe`: of rows that say the same, one stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlib.config.recipe.looking import DedupeStep
from ftlib.curate.draws import same_hashes
from ftlib.curate.rows import FROM, Row, text_of
from ftlib.curate.signs import Rows, column, dropping, texts_at
from ftlib.curate.step import Context, WholeStep, drop_told
from ftlib.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def sign(rows: Sequence[Row], settings: DedupeStep, context: Context) -> pa.Table:
    """Of each row the hash of its texts, their length, and where it comes from."""
    import pyarrow as pa

    if settings.near is not None:
        raise InputError("steps: dedupe.near is not built yet: leave it out.")
    texts = [text_of(row, settings.fields) for row in rows]
    columns: dict[str, Any] = {
        "same": same_hashes(texts),
        "length": np.fromiter(map(len, texts), np.int64),
        FROM: pa.array([row[FROM] for row in rows], pa.string()),
    }
    return pa.table(columns)


def decide(signs: Sequence[pa.Table], settings: DedupeStep, context: Context) -> list[pa.Table]:
    """The rows that go, each with the row that stays in its place."""
    same = column(signs, "same")
    stays = staying(same, column(signs, "length") if settings.keep == "longest" else None)
    goes = np.flatnonzero(stays != np.arange(len(same)))
    details = [f"like {place}" for place in texts_at(signs, FROM, stays[goes])]
    return dropping(signs, goes, ["exact"] * len(goes), details)


def staying(groups: Any, length: Any = None) -> Rows:
    """For each row the row of its group that stays: the first one, or of the longest ones the first."""
    order = np.arange(len(groups)) if length is None else np.argsort(-length, kind="stable")
    _, first, group = np.unique(groups[order], return_index=True, return_inverse=True)
    stays = np.empty(len(groups), np.int64)
    stays[order] = order[first][group]
    return stays


STEP = WholeStep(sign, decide, apply=drop_told)
