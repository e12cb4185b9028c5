"""`balance`: no kind of row has too many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftlib.config.data import printed
from ftlib.config.recipe.dividing import BalanceStep
from ftlib.curate.draws import drawn, hash_of, hashes_of
from ftlib.curate.rows import ID, Row
from ftlib.curate.signs import column, dropping
from ftlib.curate.step import Context, WholeStep, drop_told
from ftlib.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

NONE = "\0"  # the kind of rows without the field


def sign(rows: Sequence[Row], settings: BalanceStep, context: Context) -> pa.Table:
    """Of each row the hashes of its kind and of its id."""
    import pyarrow as pa

    kinds = (NONE if row.get(settings.by) is None else printed(row[settings.by]) for row in rows)
    return pa.table({"kind": hashes_of(kinds), "id": hashes_of(row[ID] for row in rows)})


def decide(signs: Sequence[pa.Table], settings: BalanceStep, context: Context) -> list[pa.Table]:
    """Of a kind with too many rows, those go for which the highest numbers are drawn. Raises InputError where no row
    has the field."""
    kinds = column(signs, "kind")
    known, kind, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    if len(known) == 1 and known[0] == hash_of(NONE):
        raise InputError(f"steps: {context.key}: no row has the field '{settings.by}'.")
    most = settings.most(int(counts.min()))
    order = np.lexsort((drawn(column(signs, "id"), context.draw("rows")), kind))
    begins = np.cumsum([0, *counts])
    place = np.empty(len(kinds), np.int64)  # of a row among those of its kind
    place[order] = np.arange(len(kinds)) - begins[kind[order]]
    goes = np.flatnonzero(place >= most)
    details = [f"{count:,} rows of this kind, {most:,} stay" for count in counts[kind[goes]]]
    return dropping(signs, goes, ["at_most"] * len(goes), details)


STEP = WholeStep(sign, decide, apply=drop_told)
