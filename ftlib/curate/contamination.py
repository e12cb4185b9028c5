"""Texts of a benchmark or an evaluation that stand within training rows: 13 words in a row that both have.

Brown et al., Language models are few-shot learners (2020), appendix C, whose 13 words and limit of 10 these are. A text
of a benchmark with fewer words is looked for whole, where it has 8; what is shorter is found by exact duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from ftlib.curate.near_duplicates import words_of
from ftlib.curate.optional import needed

WORDS = 13
FEWEST = 8
COMMON = 10  # texts of the benchmark from which on words that all have are its form, not its content
TIMES = np.uint64(0x9E3779B97F4A7C15)

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grams:
    """Words in a row of a benchmark: by their number, their hashes in order, and the text of each."""

    of: dict[int, tuple[Hashes, Places]]


def grams_of(texts: Sequence[str]) -> Grams:
    """Those of a benchmark's texts. Raises InputError where ftlib[curate] is not installed."""
    words, lengths = _hashed(texts)
    return Grams({size: _uncommon(*_grams(words, lengths, size, only=True)) for size in range(FEWEST, WORDS + 1)})


def contaminated(texts: Sequence[str], benchmark: Grams) -> Places:
    """For each text the place of a text of the benchmark whose words stand in it, -1 where there is none."""
    words, lengths = _hashed(texts)
    found = np.full(len(texts), -1)
    for size, (known, of) in benchmark.of.items():
        if len(known):
            hashes, rows = _grams(words, lengths, size)
            at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            there = known[at] == hashes
            found[rows[there]] = of[at[there]]
    return found


def _hashed(texts: Sequence[str]) -> tuple[Hashes, Places]:
    rows = [words_of(text) for text in texts]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    hashes = needed("rensa").RMinHash.hash_token_sets(rows)
    return np.fromiter(chain.from_iterable(hashes), np.uint64, int(lengths.sum())), lengths


def _grams(words: Hashes, lengths: Places, size: int, only: bool = False) -> tuple[Hashes, Places]:
    """Hashes of `size` words in a row, and the text of each; `only`: of less than 13, those that are a whole text."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    whole = (lengths == size) if only and size < WORDS else np.ones(len(lengths), bool)
    begins = np.flatnonzero((places + size <= lengths[rows]) & whole[rows])
    hashes = np.zeros(len(begins), np.uint64)
    for offset in range(size):
        hashes = hashes * TIMES + words[begins + offset]
    return hashes, rows[begins]


def _uncommon(hashes: Hashes, rows: Places) -> tuple[Hashes, Places]:
    """Each once, in order, with the first text that has it, but those that many texts have."""
    once = np.unique(np.stack([hashes, rows.astype(np.uint64)], axis=1), axis=0)
    known, first, texts = np.unique(once[:, 0], return_index=True, return_counts=True)
    kept = texts < COMMON
    return known[kept], once[first[kept], 1].astype(np.int64)
