"""A judge's score of a row, or of one answer to a question, 0 to 10: evaluation's rubric, one text at a time."""

from __future__ import annotations

from ftlib.curate.teachers.request import Reply
from ftlib.evaluation.chat_url import NoReply
from ftlib.evaluation.judge import grading, score_of

WRITTEN = 64  # tokens of a judge's reply; one that reasons before needs more
Turns = list[dict[str, str]]


def of_text(rubric: str, text: str) -> Turns:
    """What a judge is asked of a text."""
    return grading(rubric, {"TEXT TO GRADE": text})


def of_answer(rubric: str, question: str, answer: str, known: str) -> Turns:
    """What a judge is asked of an answer; `known` is the right one, '' where there is none."""
    right = {"RIGHT ANSWER": known} if known else {}
    return grading(rubric, {"QUESTION": question, **right, "ANSWER TO GRADE": answer})


def scored(reply: Reply | None) -> float | None:
    """The score of a reply; None where it has none."""
    try:
        return None if reply is None else score_of(reply.text)
    except NoReply:
        return None
