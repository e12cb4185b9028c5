"""Rows that say nearly the same: MinHash and locality-sensitive hashing, then a check of each pair.

How near two texts are is the share of their words that is the same, in order: 0.9 where one word in ten was replaced.
It is read from their pairs of neighbouring words. Of texts in which a share `s` of the words is the same, a pair
survives with `s * s`, so the Jaccard index of the pairs is `s * s / (2 - s * s)`. A text's beginning and its end are
words, too: so one other word breaks two pairs wherever it stands. Hence a short text is judged as a long one is: among
six words one other word is 0.83, and a near duplicate at 0.8 but not at 0.85. A text of five words has no near
duplicate at 0.85, only equal ones.

Two halves. `signatures` reads texts, a block at a time, in any process; `groups` decides over all of them, in memory
that grows by at most 1.2 KiB a row (128 B for the bands, 64 B for the sketch, and 4 B for each pair of words, of 256
pairs at most). Candidates of which the sketch says that they are far apart are left out before the check: most are.
Signatures are the same in every process: no hash of Python's stands in them.

Broder, On the resemblance and containment of documents (1997); Indyk and Motwani, Approximate nearest neighbors (1998).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from ftlib.curate.optional import needed
from ftlib.data.findings import normal

NEAR = 0.85  # the share of words that near duplicates have in common, at least, unless a recipe says otherwise
LOWEST = 0.75  # below it, the bands miss too many
BANDS, ROWS_OF_BAND = 32, 4  # at 0.85 they miss 3 % of pairs, at 0.9 one in 2,000
SEED = 1
PAIRS = 256  # of words that are kept of a row: all of a text of 255 words; of a longer one a sample, by hash
SKETCH = 64  # bytes of a row's sketch, of one minimum each
DOUBT = 0.19  # three standard errors of a Jaccard index by a sketch
BEFORE = 4  # rows before it in its bucket with which a row is compared, beside the first one
AT_ONCE = 20_000  # pairs of rows that are compared at once: 100 MB
# Scripts that put no space between words: each character is a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
EDGE = np.uint64(0x9E3779B97F4A7C15)  # stands before the first word and after the last
MIX, MIX_AGAIN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64's
HALF = np.uint64(32)

Hashes = npt.NDArray[np.uint32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Signatures:
    """What is kept of rows: `bands` is [rows, 32], `sketch` [rows, 64]; `pairs` are hashes of pairs of words, those of
    row i, sorted, at `ends[i]:ends[i + 1]`."""

    bands: Hashes
    sketch: npt.NDArray[np.uint8]
    pairs: Hashes
    ends: Places

    def __len__(self) -> int:
        return len(self.bands)

    @classmethod
    def joined(cls, parts: Sequence[Signatures]) -> Signatures:
        """Those of all blocks, in order."""
        starts = np.cumsum([0, *(len(part.pairs) for part in parts)])
        ends = [part.ends[1:] + start for part, start in zip(parts, starts, strict=False)]
        bands = [np.empty((0, BANDS), np.uint32), *(part.bands for part in parts)]
        sketch = [np.empty((0, SKETCH), np.uint8), *(part.sketch for part in parts)]
        pairs = [np.empty(0, np.uint32), *(part.pairs for part in parts)]
        ends = [np.zeros(1, np.int64), *ends]
        return cls(np.concatenate(bands), np.concatenate(sketch), np.concatenate(pairs), np.concatenate(ends))


def words_of(text: str) -> list[str]:
    """The words of a text without regard to case and signs; of Chinese, Japanese, Thai and their like its characters.
    A text of signs alone is one word."""
    text = normal(text)
    return WORD.findall(text) or ([text] if text else [])


def signatures(texts: Sequence[str]) -> Signatures:
    """The signatures of texts. Raises InputError where ftlib[curate] is not installed."""
    rensa = needed("rensa")
    hashes, lengths = _hashed(rensa, [words_of(text) for text in texts])
    ends = np.cumsum([0, *lengths + 1])  # a row has one pair more than words
    digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, ends.astype(np.uint64), BANDS * ROWS_OF_BAND, SEED
    )
    minima = np.array(digests.to_rows(), np.uint64).reshape(len(texts), BANDS * ROWS_OF_BAND)
    return Signatures(_bands(minima), minima[:, :SKETCH].astype(np.uint8), *_smallest(hashes, lengths + 1))


def groups(found: Signatures, near: float = NEAR) -> Places:
    """For each row the place of the first row of its group: its own, where the row stays.

    Each row that does not stay is near to the row that it names, which stays, and stands before it. So no chain of
    rows, each near to the next one, ends far from where it began. Of two texts of up to 255 words nearness is exact;
    of longer ones its Jaccard index is estimated, with a standard error of 0.03.
    """
    least = jaccard_of(near)
    same = _identical(found)
    alone = np.flatnonzero(same == np.arange(len(found)))  # one row of each that are equal word by word
    first = _led(_edges(found, alone, least), found, least)
    return first[same]


def near_rows(found: Signatures, others: Signatures, near: float = NEAR) -> Places:
    """For each row of `found` the place of a row of `others` that is near to it, -1 where there is none."""
    both, split, least = Signatures.joined([others, found]), len(others), jaccard_of(near)
    named = np.full(len(both), -1)
    for band in range(BANDS):
        for rows in _across(both.bands[:, band], split):
            rows = _perhaps(both, rows[named[rows[:, 1]] < 0], least)
            near_ones = rows[jaccards(both, rows) >= least]
            named[near_ones[:, 1]] = near_ones[:, 0]
    return named[split:]


def jaccard_of(near: float) -> float:
    """The Jaccard index of the pairs of words, of texts that have this share of their words in common."""
    return near**2 / (2 - near**2)


def nearness_of(jaccard: float) -> float:
    """The share of words in common, of a Jaccard index of pairs of words."""
    return float((2 * jaccard / (1 + jaccard)) ** 0.5)


def _hashed(rensa: Any, rows: list[list[str]]) -> tuple[npt.NDArray[np.uint64], Places]:
    """Hashes of the pairs of neighbouring words of all rows, one after the other, and the number of each row's words"""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    words = np.fromiter(chain.from_iterable(rensa.RMinHash.hash_token_sets(rows)), np.uint64, int(lengths.sum()))
    edges = np.cumsum([0, *lengths])  # an edge before each row, and one after the last, is that of both neighbours
    words = np.insert(words, edges, EDGE)
    return _mixed(words[:-1] * MIX_AGAIN + words[1:]), lengths


def _mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    hashes = (hashes ^ (hashes >> np.uint64(30))) * MIX
    return hashes ^ (hashes >> np.uint64(31))


def _bands(minima: npt.NDArray[np.uint64]) -> Hashes:
    keys = np.zeros((len(minima), BANDS), np.uint64)
    for place in range(ROWS_OF_BAND):
        keys = _mixed(keys * MIX_AGAIN + minima[:, place::ROWS_OF_BAND])
    return (keys >> HALF).astype(np.uint32)


def _smallest(hashes: npt.NDArray[np.uint64], counts: Places) -> tuple[Hashes, Places]:
    """The `PAIRS` smallest different hashes of each row, sorted, and where each row's begin."""
    rows = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    keys = _once((rows << HALF) | (hashes >> HALF))
    rows = (keys >> HALF).astype(np.int64)
    begins = np.searchsorted(rows, np.arange(len(counts)))
    kept = np.arange(len(keys)) - begins[rows] < PAIRS
    many = np.bincount(rows[kept], minlength=len(counts))
    return keys[kept].astype(np.uint32), np.cumsum([0, *many])


def _identical(found: Signatures) -> Places:
    """For each row the first one that has the same pairs of words."""
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(found.pairs.astype(np.uint64) + EDGE))])
    digests = sums[found.ends[1:]] - sums[found.ends[:-1]]  # they wrap around, and so do their differences
    _, first, place = np.unique(digests, return_index=True, return_inverse=True)
    return first[place]


def _edges(found: Signatures, alone: Places, least: float) -> Places:
    """Pairs of rows [n, 2] that are near, the earlier one first, in the order of the later one."""
    rows = max(len(found), 1)
    checked, near = np.empty(0, np.int64), np.empty(0, bool)  # pairs as one number, in order, and whether they are near
    for band in range(BANDS):
        pairs = [_perhaps(found, alone[places], least) for places in _candidates(found.bands[alone, band])]
        keys = _unlike(np.concatenate([pair[:, 1] * rows + pair[:, 0] for pair in pairs]), checked)
        new = jaccards(found, np.stack([keys % rows, keys // rows], axis=1)) >= least
        checked, near = np.concatenate([checked, keys]), np.concatenate([near, new])
        order = np.argsort(checked, kind="stable")
        checked, near = checked[order], near[order]
    return np.stack([checked[near] % rows, checked[near] // rows], axis=1)


def _unlike(keys: Places, known: Places) -> Places:
    """Each of the keys once, in order, without those that are known. `known` is in order."""
    keys = _once(keys)
    at = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
    return keys[known[at] != keys] if len(known) else keys


def _once(keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Each once, in order; np.unique takes ten times as long."""
    keys = np.sort(keys)
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys


def _bucketed(keys: Hashes) -> tuple[Places, Places]:
    """The places in the order of their keys, and where in this order the bucket of each begins."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else np.empty(0, int)
    return order, np.repeat(begins, np.diff(begins, append=len(keys)))


def _across(keys: Hashes, split: int) -> Iterator[Places]:
    """Pairs of a place before `split` and one from there on, with the same key: the first few of each bucket."""
    order, begin = _bucketed(keys)
    for further in range(BEFORE + 1):
        earlier = np.minimum(begin + further, len(keys) - 1)
        there = (earlier < np.arange(len(keys))) & (order >= split) & (order[earlier] < split)
        there &= begin[earlier] == begin if len(keys) else False
        yield np.stack([order[earlier[there]], order[there]], axis=1)


def _candidates(keys: Hashes) -> Iterator[Places]:
    """Pairs of places with the same key: each with the first one, and with some of those just before it."""
    order, begin = _bucketed(keys)
    at = np.arange(len(keys))
    for back in range(BEFORE + 1):
        earlier = begin if back == 0 else at - back
        there = earlier >= begin if back == 0 else earlier > begin
        there &= earlier < at
        pairs = np.stack([order[earlier[there]], order[at[there]]], axis=1)
        yield from np.array_split(pairs, max(1, -(-len(pairs) // 1_000_000)))


def _perhaps(found: Signatures, rows: Places, least: float) -> Places:
    """The pairs of rows that are near for all that their sketches say."""
    parts = np.array_split(rows, max(1, len(rows) // AT_ONCE))
    alike = [(found.sketch[part[:, 0]] == found.sketch[part[:, 1]]).sum(axis=1) for part in parts]
    return rows[np.concatenate(alike) >= (least - DOUBT) * SKETCH]


def jaccards(found: Signatures, rows: Places) -> npt.NDArray[np.float64]:
    """The Jaccard indices of pairs of rows [n, 2], by their pairs of words."""
    parts = [_jaccards(found, rows[at : at + AT_ONCE]) for at in range(0, len(rows), AT_ONCE)]
    return np.concatenate([np.empty(0), *parts])


def _jaccards(found: Signatures, rows: Places) -> npt.NDArray[np.float64]:
    sizes = found.ends[rows + 1] - found.ends[rows]
    sampled = (sizes == PAIRS).any(axis=1)
    keys = np.concatenate([_keyed(found, rows[:, side], sizes[:, side]) for side in (0, 1)])
    keys, times = np.unique(keys, return_counts=True)
    pair = (keys >> HALF).astype(np.int64)
    place = np.arange(len(keys)) - np.searchsorted(pair, np.arange(len(rows)))[pair]
    counted = ~sampled[pair] | (place < PAIRS)  # the smallest of both together are a fair sample of both
    shared = np.bincount(pair[counted & (times == 2)], minlength=len(rows))
    return shared / np.maximum(np.bincount(pair[counted], minlength=len(rows)), 1)


def _keyed(found: Signatures, rows: Places, sizes: Places) -> npt.NDArray[np.uint64]:
    """The pairs of words of rows, each with the place of its row in the upper half."""
    place = np.repeat(np.arange(len(rows), dtype=np.uint64), sizes)
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    keys: npt.NDArray[np.uint64] = (place << HALF) | found.pairs[np.repeat(found.ends[rows], sizes) + within]
    return keys


def _led(edges: Places, found: Signatures, least: float) -> Places:
    """For each row the first one that stays and is near to it."""
    first = np.arange(len(found))
    for earlier, later in edges.tolist():
        if first[later] != later:
            continue
        leader = first[earlier]
        if leader == earlier or jaccards(found, np.array([[leader, later]]))[0] >= least:
            first[later] = leader
    return first
