"""What repeats on the pages of a document and is no text of it: running heads, footers, page numbers.

The first and the last lines of every page are looked at. A line is furniture where its text stands at the same height
on three pages, or where it has the page's number: the number that grows by one from page to page.
A running head that names the chapter changes, but it stands where the page's number stands on other pages.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

EDGE = 3  # lines of a page's top, and of its bottom
SAME = 3  # pages on which a line repeats
SHORT = 10  # pages: of a shorter document two are enough
MARGIN = 0.12  # of the text's height: furniture stands this close to the highest line or the lowest
USUAL = 0.3  # of the pages have a number at a height, where all that stands at this height is furniture
ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


@dataclass
class Furniture:
    """Told of every page (`add`), it knows the lines that are no text (`is_furniture`)."""

    pages: int = 0
    lines: Counter[tuple[int, str]] = field(default_factory=Counter)  # (height, text) → pages
    numbers: Counter[tuple[int, int]] = field(default_factory=Counter)  # (height, number - page) → pages
    low: float = math.inf
    high: float = -math.inf

    def add(self, page: int, edges: list[tuple[float, str]]) -> None:
        """`edges` are the (height, text) of lines at the top and at the bottom of page `page`."""
        self.pages += 1
        self.lines.update({(round(y), shape(text)) for y, text in edges})
        self.numbers.update({(round(y), number - page) for y, text in edges for number in numbers(text)})
        self.low = min([self.low, *(y for y, _ in edges)])
        self.high = max([self.high, *(y for y, _ in edges)])

    def is_furniture(self, page: int, y: float, text: str) -> bool:
        """Whether the line at this height, among the first or the last of the page, is furniture."""
        margin = MARGIN * (self.high - self.low)
        if self.low + margin < y < self.high - margin:
            return False
        near = (round(y), round(y) - 1, round(y) + 1)
        least = SAME if self.pages > SHORT else 2
        if sum(self.lines[height, shape(text)] for height in near) >= least:
            return True
        if any(self.numbers[height, number - page] >= least for height in near for number in numbers(text)):
            return True
        return any(self._usual(height) for height in near)

    def _usual(self, height: int) -> bool:
        best = max((count for (at, _), count in self.numbers.items() if at == height), default=0)
        return best >= max(SAME, USUAL * self.pages)


def shape(text: str) -> str:
    """A line without its spaces and case."""
    return "".join(text.split()).lower()


def numbers(text: str) -> list[int]:
    """The numbers in a line that may be its page's: in digits; in Roman ones where the line is nothing else."""
    words = text.strip("–—-·[]() ").split()
    digits = [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) < 6]
    return digits or [roman(word) for word in words if len(words) == 1 and set(word.lower()) <= set(ROMAN)]


def roman(word: str) -> int:
    """`xiv` is 14; what is no Roman number is some number."""
    values = [ROMAN[letter] for letter in word.lower()]
    return sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True))


def edges(rows: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """The first and the last rows of a page, which are given from its top."""
    return [*rows[:EDGE], *rows[max(EDGE, len(rows) - EDGE) :]]
