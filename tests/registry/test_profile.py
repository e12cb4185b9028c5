"""What of prepared rows is a prompt and what an answer, and that a profile comes back as it was written."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from ftlib.registry.drift import Texts
from ftlib.registry.profile import Part, _labelled_spans, turns

NONE = -100


def test_every_answer_has_all_before_it_as_its_prompt():
    ids, labels = list(range(10, 18)), [NONE, NONE, 12, 13, NONE, 15, 16, NONE]
    assert list(_labelled_spans(ids, labels)) == [([10, 11], [12, 13]), ([10, 11, 12, 13, 14], [15, 16])]
    assert list(_labelled_spans(ids, ids)) == [([], ids)]  # raw text
    assert list(_labelled_spans(ids, [NONE] * 8)) == []


@pytest.mark.parametrize(
    ("kind", "row", "found"),
    [
        ("pairs", {"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [4]}, ([1], [2, 3])),
        ("judged", {"prompt_ids": [1], "completion_ids": [2], "label": False}, ([1], [2])),
        ("labelled", {"input_ids": [1, 2], "labels": 0}, ([1, 2], [])),
        ("answers", {"input_ids": [1, 2], "labels": [NONE, 2]}, ([1], [2])),
    ],
)
def test_the_rows_of_every_kind(kind, row, found):
    assert list(turns([row], kind, None)) == [found]


def test_prompts_are_written_by_the_chat_template(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    row = {"prompt": [{"role": "user", "content": "hello"}], "answer": "four"}
    ((prompt, answer),) = turns([row], "prompts", tokenizer)
    assert (tokenizer.decode(prompt), tokenizer.decode(answer)) == ("<|user|>hello<|assistant|>", "four")


def test_a_part_comes_back():
    part = Part(Texts.of(3, "one two two"), {25: {"unseen": 0.5}})

    assert Part.from_json(json.loads(json.dumps(part.to_json()))) == part
