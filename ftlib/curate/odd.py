"""The texts of a data set that are least like the others, and in what."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftlib.curate.repetition import repetition

READ = 20_000  # characters of a text that are looked at
# What is measured of a text; the least deviation that counts as one; how much of it, and how little, is called.
MEASURES = {
    "length": (0.35, "much longer than the others", "much shorter than the others"),
    "signs": (0.04, "many signs and digits", "hardly any signs or digits"),
    "characters": (0.6, "characters that are rare in the others", "only the most common characters"),
    "compression": (0.06, "hard to compress, as random text is", "easy to compress, as repeated text is"),
    "repetition": (0.08, "repeats itself", ""),
}
OTHER_LANGUAGE = 6.0  # deviations that another language than the others' counts as


@dataclass(frozen=True, slots=True)
class Strange:
    """A row, how many (robust) standard deviations it is away from the middle row, and in what."""

    row: int
    deviations: float
    why: str


def strangest(texts: Sequence[str], languages: Sequence[str] = (), most: int = 10) -> list[Strange]:
    """The `most` strangest, the strangest first. `languages` are those of the texts, 'unknown' where that is so."""
    if len(texts) < 2:
        return []
    away = _deviations([text[:READ] for text in texts])
    usual = Counter(code for code in languages if code != "unknown").most_common(1)
    found = []
    for row, deviations in enumerate(away):
        at = int(np.abs(deviations).argmax())
        _, high, low = list(MEASURES.values())[at]
        found.append(Strange(row, round(float(abs(deviations[at])), 1), high if deviations[at] > 0 else low))
        if languages and usual and languages[row] not in ("unknown", usual[0][0]):
            other = Strange(row, OTHER_LANGUAGE, f"its language is '{languages[row]}', not '{usual[0][0]}'")
            found[-1] = max(found[-1], other, key=lambda strange: strange.deviations)
    return sorted((one for one in found if one.why), key=lambda strange: -strange.deviations)[:most]


def _deviations(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Robust z-scores [texts, measures]: distances to the middle one by the middle distance."""
    rarity = _rarity(texts)
    values = np.array([_measured(text, rarity) for text in texts])
    distances = values - np.quantile(values, 0.5, axis=0)
    least = np.array([least for least, _, _ in MEASURES.values()])
    deviations: npt.NDArray[np.float64] = distances / np.maximum(
        1.4826 * np.quantile(np.abs(distances), 0.5, axis=0), least
    )
    return deviations


def _rarity(texts: Sequence[str]) -> dict[str, float]:
    """Bits of each character, by how often it stands in all texts."""
    counts = Counter(character for text in texts for character in text)
    total = counts.total()
    return {character: -math.log2(count / total) for character, count in counts.items()}


def _measured(text: str, rarity: dict[str, float]) -> list[float]:
    size = max(len(text), 1)
    raw = text.encode("utf-8", "surrogatepass")
    signs = sum(not (character.isalpha() or character.isspace()) for character in text)
    squeezed = len(zlib.compress(raw, 1)) / (len(raw) + 40) if raw else 1.0  # 40: a short text compresses badly
    return [math.log(size), signs / size, sum(rarity[one] for one in text) / size, squeezed, repetition(text)]
