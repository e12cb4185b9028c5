"""Answers that end in the middle of a sentence, as where a limit of tokens cut them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEAST_WORDS = 20  # of an answer that is looked at: a short one may be a name, or a title
MOST_ENDED = 0.5  # the share of long answers that must end as sentences do, or ends say nothing here
FEW_WORDS = 6  # a last line of no more is a title, or a name below a letter
LIKE = 0.15  # how far below the longest of them answers are that one limit of tokens cut
ENDED = re.compile(r"[.!?…。！？؟।:;)\]}>\"'”’»`*_|~$\d=%-]\s*\Z|[^\w\s,]\s*\Z")
ITEM = re.compile(r"\s*(?:[-*•+]|\w{1,3}[.)]|#+)\s|[^.!?]*[:=|(]")  # a line of a list, a table, a program
GOES_ON = re.compile(r"(?:,|\b(?:a|an|the|and|or|of|to|in|for|with|by|is|are|that|which|as|on|at|from))\s*\Z")


@dataclass(frozen=True, slots=True)
class CutAnswers:
    """Where they stand; `length` is the one in characters that most of them nearly have, None where there is none."""

    rows: tuple[int, ...]
    length: int | None = None


def cut_answers(answers: Sequence[str]) -> CutAnswers:
    """The answers of a data set that are cut; none where most of its answers have no full stop at their end."""
    long = [row for row, answer in enumerate(answers) if len(answer.split()) >= LEAST_WORDS]
    ended = sum(ENDED.search(answers[row]) is not None for row in long)
    if ended <= MOST_ENDED * len(long):
        return CutAnswers(())
    rows = tuple(row for row in long if is_cut(answers[row]))
    return CutAnswers(rows, _limit([len(answers[row]) for row in rows]))


def _limit(lengths: Sequence[int]) -> int | None:
    """The length that more than half of them nearly have, and do not exceed."""
    many, longest = max(
        ((sum((1 - LIKE) * top <= one <= top for one in lengths), top) for top in set(lengths)), default=(0, 0)
    )
    return longest if many > max(2, len(lengths) / 2) else None


def is_cut(answer: str) -> bool:
    """Whether a text goes on after its last word: it ends with a comma or a word that never ends a sentence, or has
    sentences and ends without a sign, and not in a list whose lines all end so."""
    *before, last = answer.rstrip().splitlines() or [""]
    if GOES_ON.search(last):
        return True
    if ENDED.search(last) or len(last.split()) <= FEW_WORDS:
        return False
    return not ITEM.match(last) or _end(line for line in before if ITEM.match(line))


def _end(items: Iterable[str]) -> bool:
    """Whether the other lines of a list end as sentences do."""
    ended = [line[-1:] in ".!?" for line in items]
    return sum(ended) > len(ended) / 2
