"""Text of others, made fit for a terminal: a name or a reason in a run can hold codes that move the cursor."""

from __future__ import annotations

import unicodedata

KEPT = "\n\t"
CODES = ("Cc", "Cs")
DIRECTIONS = frozenset(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
)  # they reorder what is read


def plain(text: str) -> str:
    """The text with every control character but line ends and tabs shown as its code: `\\x1b[2J` and not an empty
    screen."""
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text.replace("\r\n", "\n")))


def one_line(text: str) -> str:
    """The same on one line: no reason of a trial can look like two."""
    return " ".join(plain(text).split())


def _shown(character: str) -> str:
    if character in KEPT:
        return character
    if character in DIRECTIONS or unicodedata.category(character) in CODES:
        return character.encode("unicode_escape", "backslashreplace").decode()
    return character
