"""How much of a text it has said before."""

from __future__ import annotations

WORDS = 4  # in a row that come again


def repetition(text: str) -> float:
    """The larger of two shares: of the words that stand in four words in a row that came before; and of the characters
    in lines that came before. 0 for a text that repeats nothing, near 1 for a loop.

    After Rae et al., Scaling language models: Gopher (2021), table A1.
    """
    return max(_of_words(text.split()), _of_lines([line.strip() for line in text.splitlines() if line.strip()]))


def _of_words(words: list[str]) -> float:
    seen: set[tuple[str, ...]] = set()
    again = covered_to = 0
    for at in range(len(words) - WORDS + 1):
        gram = tuple(words[at : at + WORDS])
        if gram in seen:
            again += at + WORDS - max(at, covered_to)
            covered_to = at + WORDS
        seen.add(gram)
    return again / len(words) if words else 0.0


def _of_lines(lines: list[str]) -> float:
    seen: set[str] = set()
    again = 0
    for line in lines:
        again += len(line) * (line in seen)
        seen.add(line)
    return again / max(sum(map(len, lines)), 1)
