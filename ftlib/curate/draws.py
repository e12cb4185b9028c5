"""Hashes of texts and values as numbers, and draws from them: many at once, the same everywhere and always."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]


def hash_of(text: str) -> int:
    """64 bits of a text. Of a million texts, two have the same by chance once in forty million times."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def hashes_of(texts: Iterable[str]) -> Numbers:
    """64 bits of each text."""
    return np.fromiter(map(hash_of, texts), np.uint64)


def drawn(keys: Numbers, seed: int) -> Numbers:
    """A number drawn for each key: it depends on the key and the seed alone (SplitMix64; Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed: Numbers = keys + np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)
