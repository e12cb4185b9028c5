"""What is wrong with a text that a teacher wrote: pure functions of texts, each a few words on why, or None."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict

from ftlib.curate.languages import UNKNOWN, language

WORDS = re.compile(r"\w+")
COMPARED = 400  # words of a text
LETTERS = 4  # of a word that says something; 'the' says nothing
STEM = 6  # letters that count: 'expand' is in a text that has 'expansion' or 'expands'
REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b|"
    r"\bi(?:'m| am) (?:an ai|sorry,? but|unable to|not able to)|"
    r"^(?:i(?:'m| am) )?sorry\b|^i (?:can(?:no|')t|cannot) (?:help|assist|provide|answer|fulfil)",
    re.IGNORECASE,
)
REFERS = re.compile(
    r"\b(?:according to|in|from|of|by|does|what) (?:the|this) (?:given |provided |above |following )*"
    r"(?:text|passage|excerpt|snippet|paragraph|section)\b"
    r"|\b(?:is|are|was) (?:the|this) (?:text|passage|excerpt|snippet|paragraph|section) (?:about|for|saying)\b",
    re.IGNORECASE,
)
CODE = re.compile(r"`([^`\n]{1,80})`")
OPTION = re.compile(r"(?<=\s)-{1,2}\w[\w-]*")
SAME = 0.9  # ROUGE-L from which two texts are the same
FEWEST = 3  # words that say something, of an answer that can repeat its question
BEGINNING = 300  # characters in which a refusal stands


def refusal(text: str) -> str | None:
    """The words by which a teacher refuses."""
    found = REFUSAL.search(text[:BEGINNING].replace("\u2019", "'"))
    return found[0] if found else None


def refers(question: str) -> str | None:
    """The words by which a question points at a text that its reader does not see."""
    found = REFERS.search(question)
    return found[0] if found else None


def other_language(text: str, source: str) -> str | None:
    """'is de, not en', where both languages can be told and differ."""
    ours, theirs = language(text), language(source)
    return f"is {ours}, not {theirs}" if UNKNOWN not in (ours, theirs) and ours != theirs else None


def rouge_l(text: str, other: str) -> float:
    """The F-measure of the longest common subsequence of words (ROUGE-L, Lin 2004), 0 to 1, of 400 words each."""
    ours, theirs = _words(text), _words(other)
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * _common(ours, theirs) / (len(ours) + len(theirs))


def support(answer: str, source: str) -> float:
    """The share of an answer's words that stand in a text: words of four letters and more, by their first six, and
    numbers. 1 where the answer has none."""
    said = [_stem(word) for word in _words(answer, most=None) if len(word) >= LETTERS or word.isdigit()]
    there = {_stem(word) for word in _words(source, most=None)}
    return sum(word in there for word in said) / len(said) if said else 1.0


def repeats(question: str, answer: str) -> bool:
    """Whether an answer says nothing that its question has not said: 'Use a pipe in the shell.'"""
    says_something = sum(len(word) >= LETTERS for word in set(_words(answer))) >= FEWEST
    return rouge_l(question, answer) >= SAME or (says_something and support(answer, question) == 1)


def unknown_code(answer: str, source: str) -> str | None:
    """The first code of an answer (between backticks) whose command or options do not stand in the text."""
    for code in CODE.findall(answer):
        command, options = code.split()[:1], OPTION.findall(code)
        if not all(word in source for word in (*command, *options)):
            return f"`{code}`"
    return None


def _words(text: str, most: int | None = COMPARED) -> list[str]:
    return WORDS.findall(text.casefold())[:most]


def _stem(word: str) -> str:
    return word if word.isdigit() else word[:STEM]


def _common(ours: list[str], theirs: list[str]) -> int:
    """The length of the longest common subsequence (Hunt and Szymanski 1977)."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(theirs):
        places[word].append(place)
    ends: list[int] = []
    for word in ours:
        for place in reversed(places.get(word, ())):
            at = bisect_left(ends, place)
            ends[at : at + 1] = [place]
    return len(ends)
