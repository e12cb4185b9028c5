"""What teachers write, read and looked at: pure functions of texts."""

from __future__ import annotations

import random
import time

import pytest

from ftlib.curate.augmented import in_other_case, with_synonyms, with_typos
from ftlib.curate.faults import other_language, refers, refusal, repeats, rouge_l, support, unknown_code
from ftlib.curate.prompts import filled
from ftlib.curate.replies import alone, answer_line, questions_and_answers

PAIRS = [("What is a pipe?", "It joins commands."), ("And a list?", "Commands in order.")]


@pytest.mark.parametrize(
    "reply",
    [
        "Question: What is a pipe?\nAnswer: It joins commands.\n\nQuestion: And a list?\nAnswer: Commands in order.",
        "1. **Question:** What is a pipe?\n**Answer:** It joins commands.\n\n2. **Question:** And a list?\n"
        "**Answer:** Commands in order.",
        "<think>two</think>\nQ: What is a pipe?\nA: It joins commands.\n---\nQ: And a list?\nA: Commands in order.",
        'Here you are:\n```json\n[{"question": "What is a pipe?", "answer": "It joins commands."},'
        ' {"Question": "And a list?", "Answer": "Commands in order."}]\n```',
        '{"pairs": [{"instruction": "What is a pipe?", "output": "It joins commands."},'
        '{"instruction": "And a list?", "output": "Commands in order."}]}',
        "What is a pipe?\nAnswer: It joins commands.\n\nQuestion: And a list?\nAnswer: Commands in order.",
        '{"question": "What is a pipe?", "answer": "It joins commands."}\n'
        '{"question": "And a list?", "answer": "Commands in order."}',
    ],
)
def test_pairs_are_read_from_json_and_lines(reply: str) -> None:
    assert questions_and_answers(reply) == PAIRS


@pytest.mark.parametrize("reply", ["", "I do not know.", "Question: What?", '{"question": 3, "answer": []}', "{" * 9])
def test_nonsense_is_no_pair(reply: str) -> None:
    assert questions_and_answers(reply) == []


@pytest.mark.parametrize("reply", ["{" * 200_000, "*" * 200_000, "\n" * 200_000 + "x", "Q:\n" * 60_000, "#-*" * 60_000])
def test_hostile_replies_cost_little(reply: str) -> None:
    begun = time.process_time()
    questions_and_answers(reply)
    alone(reply)
    answer_line(reply)
    assert time.process_time() - begun < 5


def test_a_text_alone() -> None:
    assert alone('Sure! Here is the text:\n\n"How big is it?"') == "How big is it?"
    assert alone("```text\nHow big?\n```") == "How big?"
    assert alone('He said "no" and "yes"') == 'He said "no" and "yes"'


def test_the_answer_stands_after_its_word() -> None:
    assert answer_line("6 times 7 is 42.\n**Answer:** 42") == ("42", "6 times 7 is 42.")
    assert answer_line("The answer: is it 3?\nAnswer: 4\nanswer: 5") == ("5", "The answer: is it 3?\nAnswer: 4")
    assert answer_line("42") == ("42", "")


def test_what_is_wrong_with_a_text() -> None:
    assert refusal("As an AI language model, I have no opinions.") == "As an AI"
    assert refusal("I\u2019m sorry, but I can\u2019t help with that.") is not None
    assert refusal("The shell says sorry when a command is missing.") is None
    assert refers("What does the text say about pipes?") is not None
    assert refers("According to this passage, what is a pipe?") is not None
    assert refers("What is the text about?") is not None
    assert refers("How do I search the text of a file?") is None
    assert rouge_l("the cat sat on the mat", "the cat lay on the mat") == pytest.approx(10 / 12)
    assert rouge_l("", "a") == 0
    text = "The expansion of braces happens before any other. It takes 3 steps."
    assert support("Braces are expanded in 3 steps before other expansions.", text) == pytest.approx(6 / 7)
    assert support("Paris is the capital of France.", text) == 0
    assert support("It is so.", text) == 1
    assert repeats("How do I use a conditional expression in a script?", "Use a conditional expression in a script.")
    assert not repeats("Is 8 more than 3, or less?", "It is more.")
    assert unknown_code("Type `enable -n echo`.", "With -n, enable disables a builtin.") is None
    assert unknown_code("Type `export -n x`.", "With -n, enable disables a builtin.") == "`export -n x`"
    assert unknown_code("Type `enable -x`.", "With -n, enable disables a builtin.") == "`enable -x`"
    assert other_language("Wie finde ich alle Dateien in diesem Verzeichnis?", "How do I find all the files here?") == (
        "is de, not en"
    )


def test_prompts_are_filled_once() -> None:
    assert filled("{text} {other} {count}", text="{count}", count="3") == "{count} {other} 3"


def test_copies_are_changed_a_little() -> None:
    text = "Please help me: the printer on the second floor does not print anything."
    typed = with_typos(random.Random(1), text)
    assert typed != text
    assert sum(a != b for a, b in zip(typed.split(), text.split(), strict=True)) == 1
    assert with_typos(random.Random(1), "a b c 123") == "a b c 123"
    assert in_other_case(random.Random(0), text).lower() == text.lower()
    assert in_other_case(random.Random(0), "123") == "123"
    words = {"help": ["assist"], "second": ["2nd"]}
    assert with_synonyms(random.Random(3), "HELP me. Help!", words) in ("ASSIST me. Assist!", "HELP me. Assist!",
                                                                         "ASSIST me. Help!")  # fmt: skip
    assert with_synonyms(random.Random(3), "none", words) == "none"
