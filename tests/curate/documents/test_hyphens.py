"""A document's own words say what a hyphen at a line's end is."""

from __future__ import annotations

import pytest

from ftlib.curate.documents.hyphens import Vocabulary


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["an exam-", "ple"], "an example"),
        (["well-", "known"], "well-known"),
        (["a command-", "line option"], "a command-line option"),  # both are words of it, and no third one is
        (["some-", "times"], "sometimes"),
        (["a note-", "book"], "a notebook"),  # so are these, but there is a third one
        (["state-of-the-", "art"], "state-of-the-art"),
        (["Anglo-", "Saxon"], "Anglo-Saxon"),
        (["pages 12-", "14"], "pages 12-14"),
        (["soft\xad", "ware is soft\xadware"], "software is software"),
        (["ASN1_", "ERROR"], "ASN1_ERROR"),
        (["https://arxiv.org/abs/", "1509"], "https://arxiv.org/abs/1509"),
        (["pp. 66–", "89"], "pp. 66–89"),
        (["one -", "two"], "one - two"),
    ],
)
def test_lines_are_joined(lines: list[str], text: str) -> None:
    vocabulary = Vocabulary()
    for line in (
        "For example, a well-known command and its line.",
        "some of the times",
        "a note in a book: a notebook",
        "a broken exam-",
    ):
        vocabulary.add(line)
    assert vocabulary.join(lines) == text
