"""A replica's memory stays what it is.

oneDNN and PyTorch's layer over it keep what they made for each shape of a product, 1,024 of them, in some megabytes a
hundred; the shapes of a mixed batch are many. And glibc keeps what was freed between pieces that are still in use: an
adapter is read in some hundred pieces. With 200 adapters through 16 slots a replica grew by a tenth (docs/log.md).
"""

from __future__ import annotations

import ctypes
import os
import sys

SECONDS = 10.0  # between two rounds of it: one takes some 16 ms of a gigabyte's engine, beside the batch


def bound_caches(rows: int) -> None:
    """For a batch of `rows`: every shape of its steps, and the last ones of prompts. Before torch is imported."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(max(128, 8 * rows)))


def give_back() -> None:
    """Freed memory goes to the system. Does nothing where the C library is another."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
