"""Metrics that read the answer as a text: exact match, contains, a regular expression, the words in common."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from ftlib.config.evaluation import Contains, ExactMatch, Regex, TokenF1
from ftlib.evaluation.score import Score, mean_of, share_of
from ftlib.evaluation.task import Answer, Question

LONGEST = 10_000  # characters of an answer that are searched with a pattern
PATIENCE = 1.0  # seconds for the first answer that a pattern does not get done with; then a half, a third ...
ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(metric: ExactMatch, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The share of answers that are their reference, once both are normalized."""
    alike = NORMALIZED[metric.normalize]
    pairs = zip(questions, answers, strict=True)
    return share_of(metric, [alike(answer.text) == alike(question.reference) for question, answer in pairs])


def contains(metric: Contains, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The share of answers that hold their reference. Case and the number of spaces do not count. Only an empty answer
    holds an empty reference."""
    pairs = zip(questions, answers, strict=True)
    return share_of(metric, [_holds(answer.text, question.reference) for question, answer in pairs])


def _holds(answer: str, reference: str) -> bool:
    answer, reference = one_spaced(answer).casefold(), one_spaced(reference).casefold()
    return reference in answer if reference else not answer


def token_f1(metric: TokenF1, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The mean over rows of SQuAD's F1 (Rajpurkar et al. 2016): words as `squad` normalizes them, as a bag."""
    pairs = zip(questions, answers, strict=True)
    return mean_of(metric, [_f1(squad(answer.text).split(), squad(q.reference).split()) for q, answer in pairs])


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    return 2 * (Counter(said) & Counter(right)).total() / (len(said) + len(right))


def regex(metric: Regex, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The share of answers in which the pattern is found; with a group, the group must also be the reference.

    Only the first 10,000 characters are searched. A pattern can take forever on an answer (`(a+)+$`): such an answer
    counts as one without a match, and the score's warning says so.
    """
    search = _Search(metric.pattern)
    right = [search(answer.text, question.reference) for question, answer in zip(questions, answers, strict=True)]
    return share_of(metric, right, warning=search.warning)


class _Search:
    """A pattern, and on how many texts it took too long. The package `regex` can be stopped; `re` cannot."""

    def __init__(self, pattern: str) -> None:
        import regex

        self.pattern, self.endless = regex.compile(pattern), 0

    def __call__(self, text: str, reference: str) -> bool:
        try:
            found = self.pattern.search(text[:LONGEST], timeout=PATIENCE / (1 + self.endless))
        except TimeoutError:
            self.endless += 1
            return False
        if found is None or not self.pattern.groups:
            return found is not None
        return one_spaced(found.group(1) or "") == one_spaced(reference)

    @property
    def warning(self) -> str | None:
        if not self.endless:
            return None
        answers = "1 answer" if self.endless == 1 else f"{self.endless} answers"
        return (
            f"metric regex: the pattern '{self.pattern.pattern}' takes too long on {answers}, which count as no match: "
            "write a pattern without a repetition inside a repetition."
        )


def as_written(text: str) -> str:
    """The text itself."""
    return text


def one_spaced(text: str) -> str:
    """Without spaces and line breaks at the ends, and those within as one space."""
    return " ".join(text.split())


def squad(text: str) -> str:
    """As SQuAD's evaluation script normalizes answers: no case, no punctuation (of ASCII), no English articles."""
    return one_spaced(ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)))


NORMALIZED: dict[str, Callable[[str], str]] = {"none": as_written, "whitespace": one_spaced, "squad": squad}
