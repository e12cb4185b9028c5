"""Tables of signs of all blocks as one, and what is decided about rows of all as one table a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ftlib.curate.step import drops

if TYPE_CHECKING:
    import pyarrow as pa

Rows = npt.NDArray[np.int64]  # numbers of rows, counted over all blocks


def column(signs: Sequence[pa.Table], name: str) -> Any:
    """A column of numbers over all blocks, as an array."""
    return np.concatenate([table[name].to_numpy() for table in signs])


def begins(signs: Sequence[pa.Table]) -> Rows:
    """The number of each block's first row, and of the row after the last."""
    return np.cumsum([0, *(table.num_rows for table in signs)])


def texts_at(signs: Sequence[pa.Table], name: str, rows: Rows) -> list[Any]:
    """The values that a column has in some rows."""
    import pyarrow as pa

    return list(pa.chunked_array([chunk for table in signs for chunk in table[name].chunks]).take(rows).to_pylist())


def dropping(signs: Sequence[pa.Table], rows: Rows, reasons: Sequence[str], details: Sequence[str]) -> list[pa.Table]:
    """Verdicts for `drop_told`: which rows go (ascending), each with its reason and its detail."""
    edges = begins(signs)
    ends = np.searchsorted(rows, edges)
    found = []
    for block, begin in enumerate(edges[:-1]):
        one = slice(ends[block], ends[block + 1])
        found.append(drops(list(zip((rows[one] - begin).tolist(), reasons[one], details[one], strict=True))))
    return found
