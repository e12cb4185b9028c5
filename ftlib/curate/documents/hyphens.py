"""Lines of a paragraph → its text: a word that was parted at a line's end is whole again, a real hyphen stays.

No dictionary is asked, so this holds for every language: the document itself says which words it has. `exam-` and `ple`
are `example` where it stands elsewhere in the document; `well-` and `known` keep their hyphen where `well-known` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MOST = 200_000  # words that are kept: more than a long book has
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
LAST = re.compile(r"([^\W_]+(?:-[^\W_]+)*)-$")
OPEN = re.compile(r"_$|://\S*[/.=&-]$|\d–$")  # an identifier, an address, a range of pages
FIRST = re.compile(r"[^\W_]+")
PREFIXES = frozenset(  # words that make one word with the next: some-times
    {"after", "back", "down", "every", "fore", "hand", "here", "inter", "life", "over", "semi", "some", "super"}
    | {"there", "time", "under", "where", "with", "work"}
)


@dataclass
class Vocabulary:
    """The words of a document, whole ones and hyphenated ones, in lower case."""

    words: set[str] = field(default_factory=set)

    def add(self, line: str) -> None:
        """Takes the words of a line; what is parted at its end is none."""
        if len(self.words) < MOST:
            self.words.update(
                WORD.findall(line.removesuffix("-").rsplit(" ", 1)[0].lower() if line.endswith("-") else line.lower())
            )

    def join(self, lines: Iterable[str]) -> str:
        """The lines as one text. A soft hyphen is gone wherever it stands."""
        text = ""
        for line in lines:
            text = self._joined(text, line.strip()) if text else line.strip()
        return text.replace("\xad", "")

    def _joined(self, text: str, line: str) -> str:
        if text.endswith("\xad"):
            return text[:-1] + line
        if OPEN.search(text):
            return text + line
        before, after = LAST.search(text), FIRST.match(line)
        if before is None or after is None:
            dash = bool(re.search(r"[\w/]-$", text))  # a range of numbers, an option
            return f"{text}{line}" if dash and after else f"{text} {line}"
        return text + line if self._is_hyphenated(before[1], after[0]) else text[:-1] + line

    def _is_hyphenated(self, before: str, after: str) -> bool:
        if not (before[-1].isalpha() and after[0].isalpha()) or (after[0].isupper() and before[-1].islower()):
            return True
        whole, compound = f"{before}{after}".lower(), f"{before}-{after}".lower()
        if whole in self.words:
            return False
        if compound in self.words or "-" in before:
            return True
        two = before.lower() in self.words and after.lower() in self.words and min(len(before), len(after)) > 3
        return two and before.lower() not in PREFIXES
