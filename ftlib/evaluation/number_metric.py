"""The number that an answer comes to, as GSM8K's evaluation reads it (Cobbe et al. 2021, arXiv:2110.14168)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

from ftlib.config.evaluation import Number
from ftlib.errors import DataError
from ftlib.evaluation.score import Score, share_of
from ftlib.evaluation.task import Answer, Question

LONGEST = 10_000  # characters at the end of an answer that are searched
MARK = "####"
DIGITS = 300  # that a number may have
WHOLE = r"[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?![0-9])|[0-9]+"  # 1,234,567 and, as India writes it, 12,34,567
NUMBER = re.compile(
    rf"""
    (?: (?<![\w)\]}}%.]) (?P<sign>[-\u2212+]) (?=[$€£¥0-9.]) )?  # of the number, not between two: 10-5 ends in 5
    [$€£¥]? \s?
    (?P<minus>(?<=[$€£¥])[-\u2212])?                              # $-5
    (?: (?<![A-Za-z^_0-9]) (?<![0-9]\.)                           # not the 2 of m2, x^2 and CO2
      | (?<=\b[A-Z]{{3}}) | (?<=\bRs) )                           # but USD18
    (?: (?P<mixed>[0-9]{{1,9}}) (?:\s+|\s+and\s+) (?=[0-9]+/) )?  # the 2 of 2 1/2
    (?P<whole>{WHOLE}|(?<![A-Za-z.])(?=\.[0-9]))
    (?P<decimals>\.[0-9]+)?
    (?P<exponent>[eE][-+]?[0-9]{{1,2}}(?![\w.]))?
    (?: \s?/\s? (?P<below>(?:{WHOLE})(?:\.[0-9]+)?) )?
    """,
    re.VERBOSE,
)
MARKED = re.compile(rf"{MARK}[\s*=:]*(?=[-\u2212+$€£¥]*\s?\.?[0-9])")
PLAIN = (
    (re.compile(r"\{,\}"), ","),  # TeX's 1{,}000
    (re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}\b)"), ""),  # narrow spaces between thousands
    (re.compile(r"(?<=\d)\\[dt]?frac"), r" \\frac"),  # 2\frac{1}{2}
    (re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}"), r"\1/\2"),
    (re.compile(r"(?<!\d)\d+(?:\s?/\s?\d+){2,}"), lambda date: date.group().replace("/", " ")),
)


def number(metric: Number, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The share of answers whose number is the reference's, up to the tolerance. An answer without one is wrong.
    Raises DataError for a reference without one."""
    tolerance = Fraction(str(metric.tolerance))
    right = [_reference(question, row) for row, question in enumerate(questions, start=1)]
    said = [number_of(answer.text) for answer in answers]
    pairs = zip(said, right, strict=True)
    return share_of(metric, [mine is not None and abs(mine - theirs) <= tolerance for mine, theirs in pairs])


def _reference(question: Question, row: int) -> Fraction:
    found = number_of(question.reference)
    if found is None:
        raise DataError(f"metric number: the reference of row {row} has no number: '{question.reference[:60]}'.")
    return found


def number_of(text: str) -> Fraction | None:
    """The number of an answer: the one that follows the first '####', else the last after the last '####', else the
    last of the text. None where there is none.

    Commas separate thousands. Signs of currency, `%` and units are passed over: `50 %` is 50. `1/2` is a half and
    `2 1/2` two and a half. Words are no numbers: of `2 million` it reads 2. Only the last 10,000 characters, and those
    after the first '####', are read.
    """
    marked = MARKED.search(text)
    if marked is not None:
        return _first(_plain(text[marked.end() : marked.end() + LONGEST]))
    return _last(_plain(text.rpartition(MARK)[2][-LONGEST:]))


def _first(text: str) -> Fraction | None:
    found = NUMBER.search(text)
    return _value(found) if found else None


def _last(text: str) -> Fraction | None:
    found = None
    for found in NUMBER.finditer(text):  # noqa: B007
        pass
    return _value(found) if found else None


def _plain(text: str) -> str:
    """Fractions of Unicode and TeX as `1/2`, thousands with commas or with nothing, and dates without slashes."""
    text = "".join(map(_written_out, text))
    for pattern, instead in PLAIN:
        text = pattern.sub(instead, text)
    return text


def _written_out(character: str) -> str:
    """` 1/2` for `½`; others as they are."""
    if not unicodedata.decomposition(character).startswith("<fraction>"):
        return character
    return " " + unicodedata.normalize("NFKC", character).replace("\u2044", "/")


def _value(found: re.Match[str]) -> Fraction | None:
    """None for a fraction over zero, and for more digits than anybody counts with."""
    below = Fraction((found["below"] or "1").replace(",", "")) if len(found.group()) <= DIGITS else Fraction(0)
    if below == 0:
        return None
    whole = found["whole"].replace(",", "") or "0"
    value = Fraction(f"{whole}{found['decimals'] or ''}{found['exponent'] or ''}") / below
    if found["mixed"] and value < 1:  # `10 20/4` is no mixed number
        value += int(found["mixed"])
    is_negative = (found["sign"] or found["minus"] or "+") != "+"
    return -value if is_negative else value
