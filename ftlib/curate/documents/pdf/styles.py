"""What the whole of a PDF says about its lines: the size of its text, its headings, its words, what repeats.

This is the first of two passes: the second one makes blocks, page by page. It keeps counts, no text.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from ftlib.curate.documents.hyphens import Vocabulary
from ftlib.curate.documents.pdf.furniture import Furniture, edges
from ftlib.curate.documents.pdf.lines import SAME_LINE, Line

LARGER = 1.12  # of the text's size: a line this large is a heading
LONGEST = 160  # characters of a heading's line
NUMBERED = re.compile(r"(?:(?:chapter|appendix|section|part)\s+)?((?:\d{1,3}|[A-Z])(?:\.\d{1,3})+)\.?\s+\S", re.I)
CODE = 0.9  # of a line's characters are monospaced in a line of code
WIDER = 1.13  # of the usual distance of baselines: a wider one parts paragraphs

Outline = dict[int, list[tuple[int, str]]]  # page → (level, title without spaces and case) of what begins there


@dataclass
class Styles:
    """Told of every page (`add`), it answers for lines."""

    outline: Outline
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    furniture: Furniture = field(default_factory=Furniture)
    sizes: Counter[float] = field(default_factory=Counter)  # characters
    gaps: dict[float, Counter[float]] = field(default_factory=lambda: defaultdict(Counter))
    levels: dict[tuple[float, bool], Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, page: int, parts: list[Line]) -> None:
        """Counts what stands on page `page` (from 1)."""
        self.furniture.add(page, edges(heights(parts)))
        for part, below in zip(parts, [*parts[1:], None], strict=False):
            if part.is_table:
                continue
            self.sizes[part.size] += len(part.text)
            self.vocabulary.add(part.text)
            if below is not None and below.size == part.size and 0.9 < (part.y - below.y) / part.size < 2:
                self.gaps[part.size][round(part.y - below.y, 1)] += 1
            level = self.outlined(page, part)
            if level:
                self.levels[part.style][level] += 1

    @property
    def body(self) -> float:
        """The size of most characters."""
        return self.sizes.most_common(1)[0][0] if self.sizes else 10.0

    def leading(self, size: float) -> float:
        """The usual distance of two baselines of this size, in points."""
        gaps = self.gaps.get(size)
        return gaps.most_common(1)[0][0] if gaps else 1.2 * size

    def outlined(self, page: int, line: Line) -> int:
        """The level of the entry of the outline that this line of the page is; 0 for none."""
        entries = self.outline.get(page)
        if not entries:
            return 0
        said = squeezed(line.text)
        return next((level for level, title in entries if said == title or _is_numbered(said, title)), 0)

    def heading(self, page: int, before: Line | None, line: Line, after: Line | None) -> int:
        """The level of the heading that this line of the page is, between the lines around it; 0 where it is none."""
        text = line.text
        if line.is_table or line.mono > CODE or len(text) > LONGEST or not any(map(str.isalpha, text)):
            return 0
        level = self.outlined(page, line)
        if level:
            return level
        if line.size >= LARGER * self.body:
            return self._by_size(line)
        if line.bold and line.size >= 0.85 * self.body and self._stands_alone(before, line, after):
            return max(self._by_number(text), self._deepest() + 1)
        return 0

    def _stands_alone(self, before: Line | None, line: Line, after: Line | None) -> bool:
        """Whether a bold line is a heading: short, with room above it, and no line of a bold paragraph."""
        text = line.text
        if len(text) > 90 or text.endswith((".", ",", ";", ":", "-")) or not (text[0].isupper() or text[0].isdigit()):
            return False
        room = self.leading(line.size) * WIDER
        if after is not None and after.bold and after.style == line.style and 0 < line.y - after.y <= room:
            return False
        return before is None or before.y - line.y > room or before.size > line.size

    def _by_size(self, line: Line) -> int:
        if line.style in self.levels:
            return self.levels[line.style].most_common(1)[0][0]
        larger = {size for (size, _) in self.levels if size > line.size}
        if self.levels:
            above = [self.levels[style].most_common(1)[0][0] for style in self.levels if style[0] in larger]
            return min(6, max(above, default=0) + 1)
        return max(self._by_number(line.text), min(6, 1 + sum(size > line.size for size in self._large())))

    def _large(self) -> list[float]:
        return [size for size in self.sizes if size >= LARGER * self.body]

    def _by_number(self, text: str) -> int:
        """2 for `3.1 Quoting`; 0 for a number without parts, since any list has these."""
        found = NUMBERED.match(text)
        return found[1].count(".") + 1 if found and "." in found[1] else 0

    def _deepest(self) -> int:
        levels = [level for counts in self.levels.values() for level in counts]
        return min(5, max(levels, default=len(self._large())))


def heights(parts: list[Line]) -> list[tuple[float, str]]:
    """The lines of a page across all its columns: (height, text), from its top."""
    found: list[tuple[float, str]] = []
    for part in parts:
        if found and abs(found[-1][0] - part.y) <= SAME_LINE * part.size:
            found[-1] = (found[-1][0], f"{found[-1][1]} {part.text}")
        else:
            found.append((part.y, part.text))
    return found


def squeezed(text: str) -> str:
    """Letters and digits alone, in lower case."""
    return "".join(filter(str.isalnum, text.lower()))


def outline(entries: Iterable[tuple[int, int, str]]) -> Outline:
    """From (page from 1, level from 1, title)."""
    found: Outline = defaultdict(list)
    for page, level, title in entries:
        found[page].append((level, squeezed(title)))
    return {page: [(level, title) for level, title in titles if title] for page, titles in found.items()}


def _is_numbered(said: str, title: str) -> bool:
    """`3.1 Quoting` for the title `Quoting`, and the other way round."""
    longer, shorter = (said, title) if len(said) > len(title) else (title, said)
    rest = longer.removesuffix(shorter)
    return bool(rest != longer and len(shorter) > 2 and re.fullmatch(r"(chapter|appendix|part)?[a-z]?\d*", rest))
