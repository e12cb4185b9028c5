"""Words of a page → pieces of lines → lines."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from ftlib.curate.documents.pdf.words import Word

GAP = 1.0  # of a font's size: a wider gap between words may part columns or cells
SAME_LINE = 0.25  # of a font's size: baselines closer than this are one line's


@dataclass(slots=True)
class Line:
    """Words from left to right on one baseline. A table is one word in Markdown, that stands where its top does."""

    words: list[Word]
    is_table: bool = False

    @property
    def x0(self) -> float:
        return self.words[0].x0

    @property
    def x1(self) -> float:
        return max(word.x1 for word in self.words)

    @property
    def y(self) -> float:
        return self.words[0].y

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def size(self) -> float:
        """That of most of its characters."""
        counts = Counter[float]()
        for word in self.words:
            counts[word.size] += len(word.text)
        return counts.most_common(1)[0][0]

    @property
    def mono(self) -> float:
        """The share of its characters that are monospaced."""
        counts = Counter[bool]()
        for word in self.words:
            counts[word.face.mono] += len(word.text)
        return counts[True] / counts.total()

    @property
    def style(self) -> tuple[float, bool]:
        return self.size, self.bold

    @property
    def bold(self) -> bool:
        """Whether every word is bold."""
        return all(word.face.bold for word in self.words)


def pieces(words: Iterable[Word]) -> list[Line]:
    """Words that stand side by side with no wide gap between them, from the top to the bottom of the page."""
    return [Line(run) for row in rows(words) for run in _runs(row)]


def rows(words: Iterable[Word]) -> Iterator[list[Word]]:
    """The words of each baseline, from left to right; the baselines from the top."""
    row: list[Word] = []
    for word in sorted(words, key=lambda word: (-word.y, word.x0)):
        if row and row[0].y - word.y > SAME_LINE * max(row[0].size, word.size):
            yield row
            row = []
        insort(row, word, key=lambda word: word.x0)
    if row:
        yield row


def _runs(row: list[Word]) -> Iterator[list[Word]]:
    run: list[Word] = []
    for word in row:
        if run and word.x0 - run[-1].x1 > GAP * max(word.size, run[-1].size):
            yield run
            run = []
        run.append(word)
    yield run


def joined(parts: Iterable[Line]) -> list[Line]:
    """The pieces of one column as its lines; tables stay what they are."""
    lines: list[Line] = []
    for is_table, group in groupby(parts, key=lambda part: part.is_table):
        lines += group if is_table else [Line(row) for row in rows(word for part in group for word in part.words)]
    return lines
