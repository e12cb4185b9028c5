"""Which sentences say something by themselves, and whether a question leads back to one."""

from __future__ import annotations

import pytest

from ftlib.curate.statements import answered_elsewhere, statements

PIPE = "A pipeline is a sequence of commands that are\nseparated by the operator |."
NEXT = "This means that the output of each command goes to the next one."
STATUS = "The exit status of a pipeline is the exit status of its last command."
TEXT = (
    f"3.2.3 Pipelines\n\n{PIPE} {NEXT} {STATUS} Too short.\n\nand no beginning of a sentence, although it has a mark."
    "\n\nA table of words that ends without any mark"
)


def test_statements_say_something_by_themselves() -> None:
    assert statements(TEXT) == [" ".join(PIPE.split()), STATUS]
    assert statements("") == []


@pytest.mark.parametrize(
    ("question", "elsewhere"),
    [
        ("What is the exit status of a pipeline?", None),
        ("Which operator separates the commands of a sequence?", " ".join(PIPE.split())),
        ("Who is it?", None),  # it has no word that says something
        ("How tall are giraffes?", ""),
    ],
)
def test_a_question_leads_back_to_its_sentence(question: str, elsewhere: str | None) -> None:
    assert answered_elsewhere(question, STATUS, TEXT) == elsewhere
