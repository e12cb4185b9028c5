"""Freed memory goes back to the system.

glibc keeps what was freed between pieces that are still in use. Adapters are read all day, each in some hundred pieces:
with 200 of them through 16 slots a replica grew by a tenth while what it used stayed the same to the byte (docs/log.md).
"""

from __future__ import annotations

import ctypes
import sys

SECONDS = 10.0  # between two rounds of it: one takes some 16 ms of a gigabyte's engine, beside the batch


def give_back() -> None:
    """Does nothing where the C library is another."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
