"""Rows that say the same but for case, space, and the way in which accents are written (`data.findings.normal`).

Two halves, as for near duplicates: a digest a row in any process, then one decision over all of them. The same digests
serve for contradictions: `data.findings.contradicting(digests(asked), digests(answers))`.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from ftlib.data.findings import normal


def digests(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """8 bytes of BLAKE2b for each text: among a million, two that differ have the same with a chance of 3e-8."""
    found = (blake2b(normal(text).encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(found), np.uint64)


def firsts(digests: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """For each row the place of the first one with its digest: its own, where the row is the first."""
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    return first.astype(np.int64)[group]
