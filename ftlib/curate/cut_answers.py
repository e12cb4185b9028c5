"""Answers that end in the middle of a sentence, as where a limit of tokens cut them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_WORDS = 20  # of an answer that is looked at: a short one may be a name, or a title
MOST_ENDED = 0.5  # the share of long answers that must end as sentences do, or ends say nothing here
LIKE = 0.15  # how far below the longest of them the lengths of cut answers are, where one limit cut them
ENDED = re.compile(r"[.!?…。！？؟।:;)\]}>\"'”’»`*_|~$\d=%-]\s*\Z|[^\w\s,]\s*\Z")
ITEM = re.compile(r"\s*(?:[-*•+]|\w{1,3}[.)]|#+)\s|[^.!?]*[:=|(]")  # a line of a list, a table, a program
GOES_ON = re.compile(r"(?:,|\b(?:a|an|the|and|or|of|to|in|for|with|by|is|are|that|which|as|on|at|from))\s*\Z")


@dataclass(frozen=True, slots=True)
class CutAnswers:
    """Where they stand; `length` is that of the longest in characters, where most are about as long, else None."""

    rows: tuple[int, ...]
    length: int | None = None


def cut_answers(answers: Sequence[str]) -> CutAnswers:
    """The answers of a data set that are cut; none where most of its answers have no full stop at their end."""
    long = [row for row, answer in enumerate(answers) if len(answer.split()) >= LEAST_WORDS]
    ended = sum(ENDED.search(answers[row]) is not None for row in long)
    if ended <= MOST_ENDED * len(long):
        return CutAnswers(())
    rows = tuple(row for row in long if is_cut(answers[row]))
    lengths = [len(answers[row]) for row in rows]
    alike = sum(length >= (1 - LIKE) * max(lengths) for length in lengths)
    return CutAnswers(rows, max(lengths) if len(rows) > 2 and alike > len(rows) / 2 else None)


def is_cut(answer: str) -> bool:
    """Whether a text goes on after its last word: it ends with a comma or a word that never ends a sentence, or has
    sentences and ends without a sign, and not in a list."""
    last = answer.rstrip().rpartition("\n")[2]
    if GOES_ON.search(last):
        return True
    return not ENDED.search(last) and not ITEM.match(last) and len(last.split()) > 6
