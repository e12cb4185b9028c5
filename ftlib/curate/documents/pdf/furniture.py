"""What repeats on the pages of a document and is no text of it: running heads, footers, page numbers.

The first and the last lines of every page are looked at. A line is furniture where its text (without digits) stands at
the same height on three pages, or where it has the page's number: the number that grows by one from page to page.
A running head that names the chapter changes, but it stands where the page's number stands on other pages.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

EDGE = 3  # lines of a page's top, and of its bottom
SAME = 3  # pages on which a line repeats
SHORT = 10  # pages: of a shorter document two are enough
USUAL = 0.3  # of the pages have a number at a height, where all that stands at this height is furniture
NUMBER = re.compile(r"\d+|\b[ivxlc]+\b", re.I)
ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


@dataclass
class Furniture:
    """Told of every page (`add`), it knows the lines that are no text (`is_furniture`)."""

    pages: int = 0
    lines: Counter[tuple[int, str]] = field(default_factory=Counter)  # (height, text without numbers) → pages
    numbers: Counter[tuple[int, int]] = field(default_factory=Counter)  # (height, number - page) → pages
    heights: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))  # offset → heights

    def add(self, page: int, edges: Iterable[tuple[float, str]]) -> None:
        """`edges` are the (height, text) of lines at the top and at the bottom of page `page`."""
        self.pages += 1
        seen = {(round(y), shape(text)) for y, text in edges}
        offsets = {(round(y), number - page) for y, text in edges for number in numbers(text)}
        self.lines.update(seen)
        self.numbers.update(offsets)

    def is_furniture(self, page: int, y: float, text: str) -> bool:
        """Whether the line at this height, among the first or the last of the page, is furniture."""
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
    """A line without its numbers and spaces."""
    return "".join(NUMBER.sub("#", text).split()).lower()


def numbers(text: str) -> list[int]:
    """The numbers at the ends of a line, which may be the page's: in digits, or in Roman ones where it has no other."""
    words = text.strip("–—-· ").split()
    ends = {words[0], words[-1]} if words else set()
    digits = [int(word) for word in ends if word.isascii() and word.isdecimal() and len(word) < 6]
    return digits or [roman(word) for word in ends if len(words) == 1 and set(word.lower()) <= set(ROMAN)]


def roman(word: str) -> int:
    values = [ROMAN[letter] for letter in word.lower()]
    return sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True))


def edges(rows: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """The first and the last rows of a page, which are given from its top."""
    return [*rows[:EDGE], *rows[max(EDGE, len(rows) - EDGE) :]]
