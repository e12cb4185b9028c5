"""How far traffic is from the data that a model was trained on, as numbers: of lengths, and of words.

Every such number is above zero even where nothing drifted, the more so the fewer texts it is taken of. So each is read
beside what as many held-out texts of the training data give (`expected`), never alone.
"""

from __future__ import annotations

import math
import random
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

WORD = re.compile(r"\w+")
PLACEHOLDER = re.compile(r"\[(?:email|phone|card|iban|key|redacted)\]")  # what the sample log puts in place of a secret
BINS = 10  # of the population stability index: deciles of the training data, as is the custom
SIZES = (25, 50, 100, 200, 400, 800, 1600)  # numbers of texts that the expectation is known for
DRAWS = 10  # of each size


@dataclass(frozen=True)
class Texts:
    """Some prompts, or some answers: how many tokens each has, and how often each word stands in all of them."""

    lengths: Counter[int]
    words: Counter[str]

    @cached_property
    def total(self) -> int:
        return self.words.total()

    @classmethod
    def together(cls, parts: Sequence[Texts]) -> Texts:
        lengths: Counter[int] = Counter()
        words: Counter[str] = Counter()
        for part in parts:
            lengths.update(part.lengths)
            words.update(part.words)
        return cls(lengths, words)

    @classmethod
    def of(cls, length: int, text: str) -> Texts:
        return cls(Counter([length]), Counter(words(text)))

    def quantiles(self) -> dict[str, int]:
        """Lengths at the 5th, 50th and 95th per cent, nearest-rank."""
        ordered = sorted(self.lengths.elements())
        return (
            {f"p{percent}": ordered[-(-len(ordered) * percent // 100) - 1] for percent in (5, 50, 95)}
            if ordered
            else {}
        )


def words(text: str) -> list[str]:
    """The words of a text, in lower case; what a redaction left in the place of one is none."""
    return WORD.findall(PLACEHOLDER.sub(" ", text).lower())


def stability(reference: Counter[int], other: Counter[int]) -> float:
    """The population stability index of two distributions of lengths, over the deciles of the first (Siddiqi 2006).

    Half a text is added to every bin, so that an empty one is no infinity.
    """
    edges = _deciles(reference)
    first, second = _binned(reference, edges), _binned(other, edges)
    return sum((q - p) * math.log(q / p) for p, q in zip(first, second, strict=True))


def divergence(reference: Texts, other: Texts) -> float:
    """The Jensen-Shannon divergence of two distributions of words, in bits: 0 for the same, 1 for no word in common."""
    if not reference.total or not other.total:
        return 0.0 if reference.total == other.total else 1.0
    shared, found = 0.0, 0.0
    for word, count in other.words.items():
        p, q = reference.words.get(word, 0) / reference.total, count / other.total
        middle = (p + q) / 2
        found += q / 2 * math.log2(q / middle) + (p / 2 * math.log2(p / middle) if p else 0.0)
        shared += p
    return found + (1 - shared) / 2  # each word that the other lacks adds half its share


def unseen(reference: Texts, other: Texts) -> float:
    """The share of the other's words, as they run, that the reference never has."""
    missing = sum(count for word, count in other.words.items() if word not in reference.words)
    return missing / other.total if other.total else 0.0


def measures(reference: Texts, other: Texts) -> dict[str, float]:
    """The three numbers, by their names in a report."""
    return {
        "stability": stability(reference.lengths, other.lengths),
        "divergence": divergence(reference, other),
        "unseen": unseen(reference, other),
    }


def expectations(reference: Texts, held_out: Sequence[Texts]) -> dict[int, dict[str, float]]:
    """What `measures` gives for so many texts when nothing drifted: mean and two deviations over draws of held-out
    ones."""
    drawing, found = random.Random(0), {}
    for size in SIZES:
        draws = [measures(reference, Texts.together(drawing.choices(held_out, k=size))) for _ in range(DRAWS)]
        columns = {name: [draw[name] for draw in draws] for name in draws[0]}
        found[size] = {name: statistics.mean(values) + 2 * statistics.stdev(values) for name, values in columns.items()}
    return found


def expected(table: Mapping[int, Mapping[str, float]], size: int) -> Mapping[str, float]:
    """The row of the largest size that is not above `size`: fewer texts stray further, so none is judged too hard."""
    return table[max((known for known in table if known <= size), default=min(table))]


def _deciles(lengths: Counter[int]) -> list[int]:
    """The upper edges of the bins but the last; equal lengths are never parted, so there may be fewer."""
    ordered = sorted(lengths.elements())
    return sorted({ordered[-(-len(ordered) * part // BINS) - 1] for part in range(1, BINS)})


def _binned(lengths: Counter[int], edges: Sequence[int]) -> list[float]:
    """The share of the values that falls into each bin."""
    counts = [0.5] * (len(edges) + 1)
    for length, count in lengths.items():
        counts[sum(length > edge for edge in edges)] += count
    total = sum(counts)
    return [count / total for count in counts]
