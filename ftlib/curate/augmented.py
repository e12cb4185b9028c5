"""A text with typing errors, in other case, or with other words: what a reader overlooks, and a model should too."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
SHARE = 0.1  # of the words that get a typing error; one at least
SHORTEST = 3  # letters of a word that gets one
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # keys of a keyboard, of which neighbours are hit by mistake
BESIDE = {
    key: row[max(0, place - 1) : place] + row[place + 1 : place + 2] for row in ROWS for place, key in enumerate(row)
}

Thesaurus = Mapping[str, Sequence[str]]


def with_typos(draw: random.Random, text: str) -> str:
    """The text with one word in ten mistyped: two letters swapped, one left out, doubled, or hit beside its key."""
    places = [found for found in WORD.finditer(text) if len(found[0]) >= SHORTEST]
    wanted = max(1, round(SHARE * len(places)))
    chosen = sorted(draw.sample(range(len(places)), min(wanted, len(places))), reverse=True)
    for number in chosen:
        begin, end = places[number].span()
        text = text[:begin] + _mistyped(text[begin:end], draw) + text[end:]
    return text


def in_other_case(draw: random.Random, text: str) -> str:
    """The text in small letters, in capitals, or with a small first letter."""
    ways: tuple[Callable[[str], str], ...] = (str.lower, str.upper, lambda one: one[:1].lower() + one[1:])
    others = [changed for way in ways if (changed := way(text)) != text]
    return draw.choice(others) if others else text


def with_synonyms(draw: random.Random, text: str, thesaurus: Thesaurus) -> str:
    """The text with each known word replaced with a chance of a half, one at least."""
    places = [found for found in WORD.finditer(text) if found[0].lower() in thesaurus]
    chosen = [found for found in places if draw.random() < 0.5] or places[:1]
    for found in reversed(chosen):
        other = draw.choice(thesaurus[found[0].lower()])
        text = text[: found.start()] + _cased(other, found[0]) + text[found.end() :]
    return text


def _mistyped(word: str, draw: random.Random) -> str:
    place = draw.randrange(1, len(word) - 1)
    way = draw.randrange(4)
    if way == 0 and word[place] != word[place + 1]:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if way == 1:
        return word[:place] + word[place + 1 :]
    if way == 2 and (beside := BESIDE.get(word[place].lower())):
        return word[:place] + draw.choice(beside) + word[place + 1 :]
    return word[: place + 1] + word[place:]


def _cased(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
