"""Lines that many texts share: menus, banners, licence notices, running heads of texts that were pages.

Two steps, so that texts may be counted in parts and the counts added: `Lines.add` over all texts, then `without`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

SHARE = 0.3  # of the texts have a line that is boilerplate
LEAST = 5  # texts
MOST = 1_000_000  # different lines that are counted: rare ones are forgotten beyond that
NUMBER = re.compile(r"\d+")


@dataclass
class Lines:
    """In how many texts each line stands, without regard to its numbers, spaces and case."""

    texts: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, text: str) -> None:
        """Counts the lines of one text, each once."""
        self.texts += 1
        self.counts.update({line_shape(line) for line in text.splitlines() if line.strip()})
        if len(self.counts) > MOST:
            self.counts = Counter({line: count for line, count in self.counts.items() if count > 1})

    def merge(self, other: Lines) -> None:
        """Adds the counts of other texts."""
        self.texts += other.texts
        self.counts.update(other.counts)

    def repeated(self, share: float = SHARE, least: int = LEAST) -> frozenset[str]:
        """The shapes of the lines that `share` of the texts have, and `least` texts or more."""
        enough = max(least, share * self.texts)
        return frozenset(line for line, count in self.counts.items() if count >= enough)


def line_shape(line: str) -> str:
    """A line as it is compared."""
    return "".join(NUMBER.sub("#", line).split()).casefold()


def without(text: str, repeated: frozenset[str]) -> tuple[str, int]:
    """The text without its lines that are `repeated`, and how many these are. Where a line goes, no gap stays."""
    kept, gone = list[str](), 0
    for line in text.splitlines():
        if line.strip() and line_shape(line) in repeated:
            gone += 1
        elif line.strip() or (kept and kept[-1].strip()) or not gone:
            kept.append(line)
    return ("\n".join(kept).strip("\n"), gone) if gone else (text, 0)
