"""Sentences of a text that say something by themselves, so that a question can be asked for each.

A sentence that begins with 'This' or 'However' leans on the one before it. A line that is too short says too little,
and one that ends without a mark is a heading, a cell, or a piece of code.
"""

from __future__ import annotations

import re

from ftlib.curate.faults import support
from ftlib.curate.sentences import sentences

FEWEST, MOST = 8, 45  # words
LEANS = re.compile(
    r"(?:this|that|these|those|it|its|they|their|he|she|such|here|there|then|thus|hence|also|however|therefore|otherwise"
    r"|similarly|likewise|instead|moreover|furthermore|see|note|if so|in this|in that|for example|for instance"
    r"|in addition|as above|in the (?:above|previous|following)|the (?:following|former|latter|above)"
    r"|first|second|third|finally|next|again)\b",
    re.IGNORECASE,
)


def statements(text: str) -> list[str]:
    """The sentences that say something by themselves, in order, each on one line."""
    found = [" ".join(sentence.split()) for sentence in sentences(text)]
    return [sentence for sentence in found if _says_something(sentence)]


def answered_elsewhere(question: str, sentence: str, text: str) -> str | None:
    """The beginning of another sentence of the text that has more of the question's words: the question does not lead
    back to its own (round-trip consistency: Alberti et al. 2019, arXiv:1906.05416). '' where no sentence has any."""
    ours = support(question, sentence)
    others = [" ".join(other.split()) for other in sentences(text)]
    best = max((other for other in others if other != sentence), key=lambda other: support(question, other), default="")
    if ours and support(question, best) <= ours:
        return None
    return best[:80] if support(question, best) else ""


def _says_something(sentence: str) -> bool:
    words = sentence.split()
    begins = sentence[:1].isupper() or not sentence[:1].isascii()
    return FEWEST <= len(words) <= MOST and begins and sentence.endswith((".", "。")) and not LEANS.match(sentence)
