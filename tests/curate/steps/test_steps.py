"""Each step alone, on a few rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ftlib.config.recipe.dividing import BalanceStep, SplitStep
from ftlib.config.recipe.looking import DecontaminateStep, DedupeStep, RedactStep
from ftlib.config.recipe.texts import ChunkStep, CleanStep, FilterStep, LabelsStep
from ftlib.curate.rows import SPLIT, Row, text_of
from ftlib.curate.step import Result, WholeStep
from ftlib.curate.steps import step_of
from ftlib.curate.steps.clean import repaired, spaced
from ftlib.errors import InputError
from tests.conftest import ROOT
from tests.curate.conftest import CONTEXT, as_rows, write_lines


def applied(name: str, rows: list[Row], settings: Any, blocks: int = 3) -> Result:
    """A step over rows that stand in several blocks."""
    step = step_of(name, settings)
    cut = [rows[start::1][: len(rows) // blocks + 1] for start in range(0, len(rows), len(rows) // blocks + 1)]
    if not isinstance(step, WholeStep):
        parts = [step.work(block, settings, CONTEXT) for block in cut]
    else:
        told = step.decide([step.sign(block, settings, CONTEXT) for block in cut], settings, CONTEXT)
        parts = [step.apply(block, one, settings, CONTEXT) for block, one in zip(cut, told, strict=True)]
    whole = Result()
    for part in parts:
        whole.kept += part.kept
        whole.dropped += part.dropped
        whole.changed += part.changed
    return whole


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("caf\u00c3\u00a9", "café"),
        ("cafe\u0301", "café"),
        ("it’s &amp; “so”", "it’s &amp; “so”"),
        ("１００ ｋｇ", "１００ ｋｇ"),
    ],
)
def test_what_was_decoded_wrongly_is_repaired(text: str, now: str) -> None:
    assert repaired(text) == now


def test_space_that_nobody_sees_goes() -> None:
    assert spaced("  a\u00a0b \t\r\n\r\n\r\n\r\n  c\x07\u200b ") == "a b\n\n  c"
    assert spaced("def f():\n    return 1\n") == "def f():\n    return 1"


def test_clean_changes_turns_and_drops_what_is_empty() -> None:
    rows = as_rows({"messages": [{"role": "user ", "content": " hi "}]}, {"text": " \u200b "}, {"text": "fine", "n": 3})
    result = applied("clean", rows, CleanStep())
    assert result.kept[0]["messages"] == [{"role": "user ", "content": "hi"}]
    assert result.kept[1] is rows[2]
    assert [(note.row, note.reason) for note in result.dropped] == [(rows[1], "empty")]
    assert [note.reason for note in result.changed] == ["whitespace"]


@pytest.mark.parametrize(
    ("settings", "goes"),
    [
        ({"min_chars": 6}, {0: "min_chars: 5 characters"}),
        ({"max_words": 2}, {1: "max_words: 3 words", 2: "max_words: 12 words"}),
        ({"max_repetition": 0.3}, {2: "max_repetition: 0.50 of it"}),
        ({"where": {"stars": {"at_least": 4}}}, {1: "where.stars: is 3", 2: "where.stars: is not there"}),
        ({"where": {"source": ["forum", "mail"]}}, {1: "where.source: is web", 2: "where.source: is not there"}),
        ({"where": {"source": {"matches": "^w"}}}, {0: "where.source: is forum", 2: "where.source: is not there"}),
    ],
)
def test_filter_says_why(settings: dict[str, Any], goes: dict[int, str]) -> None:
    rows = as_rows(
        {"text": "hello", "stars": 5, "source": "forum"},
        {"text": "one two three", "stars": 3, "source": "web"},
        {"text": "a b c d e f a b c d e f"},
    )
    result = applied("filter", rows, FilterStep.model_validate({"fields": ["text"], **settings}))
    assert {rows.index(note.row): f"{note.reason}: {note.detail}" for note in result.dropped} == goes
    assert len(result.kept) == 3 - len(goes)


def test_labels_get_one_spelling() -> None:
    labels = ["Account", "account ", "account", "ACCOUNT", "Refund", 0, None]
    rows = as_rows(*({"text": "a", "label": label} for label in labels))
    result = applied("labels", rows, LabelsStep.model_validate({"map": {"Refund": "money", 0: "none"}, "case": "fold"}))
    assert [row["label"] for row in result.kept] == ["account"] * 4 + ["money", "none", None]
    assert [note.detail for note in result.changed][:2] == ["Account -> account", "account  -> account"]
    given = applied("labels", rows, LabelsStep.model_validate({"map": {"Account": "ACCOUNT"}, "case": "fold"}))
    assert {row["label"] for row in given.kept[:4]} == {"ACCOUNT"}
    only = applied("labels", rows, LabelsStep.model_validate({"case": "lower", "only": ["account"]}))
    assert (len(only.kept), Counter(note.detail for note in only.dropped)["it has no label"]) == (4, 1)


def test_a_label_that_no_row_has_is_refused() -> None:
    rows = as_rows({"text": "a", "label": "account"})
    with pytest.raises(InputError, match="no row has 'acount': there are account. Did you mean 'account'?"):
        applied("labels", rows, LabelsStep(map={"acount": "x"}))
    with pytest.raises(InputError, match="no row has the field 'class'"):
        applied("labels", rows, LabelsStep(field="class"))


def test_of_the_same_texts_one_stays() -> None:
    texts = ["Hello  there", "x", "hello there", "y", "HELLO   THERE ", "cafe\u0301", "café"]
    rows = as_rows(*({"text": text} for text in texts))
    result = applied("dedupe", rows, DedupeStep())
    assert [row["text"] for row in result.kept] == ["Hello  there", "x", "y", "cafe\u0301"]
    assert [note.detail for note in result.dropped] == ["like a.jsonl:1", "like a.jsonl:1", "like a.jsonl:6"]
    longest = applied("dedupe", rows, DedupeStep(keep="longest"))
    assert "Hello  there" not in [row["text"] for row in longest.kept]


def test_of_nearly_the_same_texts_one_stays() -> None:
    words = [f"word{number}" for number in range(40)]
    texts = [" ".join(words), " ".join([*words[:20], "other", *words[21:]]), " ".join(reversed(words)), " ".join(words)]
    rows = as_rows(*({"text": text} for text in texts))
    result = applied("dedupe", rows, DedupeStep(near=0.85))
    assert [(rows.index(note.row), note.reason) for note in result.dropped] == [(1, "near"), (3, "exact")]
    assert applied("dedupe", rows, DedupeStep(near=0.85), blocks=1).dropped == result.dropped


def test_personal_data_goes_and_the_notes_do_not_have_it() -> None:
    rows = as_rows({"text": "Write to ann@example.org or bob@example.org", "label": "a"}, {"text": "nothing"})
    result = applied("redact", rows, RedactStep(kinds=["email", "phone"]))
    assert result.kept[0]["text"] == "Write to [EMAIL] or [EMAIL]"
    assert [(note.reason, note.detail) for note in result.changed] == [("email", "2 email")]
    dropped = applied("redact", rows, RedactStep(kinds=["email"], drop=True)).dropped
    assert "example" not in str(dropped)


def test_rows_of_a_test_are_not_trained_on(tmp_path: Path) -> None:
    question = "How many clips did Natalia sell altogether in April and in May of the same year, and why?"
    file = write_lines(tmp_path / "test.jsonl", [{"prompt": question, "completion": "72"}])
    rows = as_rows(
        {"text": f"{'Hello, I have a riddle for you. ' * 3}{question} Tell me now, for I must know it today."},
        {"text": question.upper()},
        {"text": "How many clips?"},
    )
    result = applied("decontaminate", rows, DecontaminateStep(against=[str(file)]))
    assert [(rows.index(note.row), note.reason) for note in result.dropped] == [(0, "words"), (1, "exact")]
    assert result.dropped[0].detail == "like test.jsonl:1"


def test_lines_that_rows_share_go() -> None:
    rows = as_rows(*({"text": f"Page {number}\nWhat is said on {'abcdefghi'[number]}.\nAll rights reserved"}
                     for number in range(9)))  # fmt: skip
    result = applied("clean", rows, CleanStep(boilerplate=True))
    assert [row["text"] for row in result.kept] == [f"What is said on {letter}." for letter in "abcdefghi"]
    assert {note.reason for note in result.changed} <= {"boilerplate", "whitespace"}


def test_a_document_becomes_chunks() -> None:
    blocks = [("heading", "Install", 1), ("paragraph", "Unpack it. " * 10, 0), ("paragraph", "Run it. " * 30, 0)]
    fields = [{"kind": kind, "text": text, "first": 1, "last": 2, "level": level} for kind, text, level in blocks]
    (row,) = as_rows({"document": "m.pdf", "unit": "page", "blocks": fields})
    kept = applied("chunk", [row], ChunkStep(tokens=48, overlap=8), blocks=1).kept
    assert len(kept) > 2
    assert all(len(one["text"].encode()) <= 48 * 4 and one["document"] == "m.pdf" for one in kept)
    assert {one["_from"] for one in kept} == {"m.pdf#page=1-2"}
    assert len({one["_id"] for one in kept}) == len(kept)


def test_no_kind_has_too_many() -> None:
    rows = as_rows(*({"text": str(n), "label": "a" if n % 10 else "b"} for n in range(100)))
    result = applied("balance", rows, BalanceStep(at_most="4x"))
    assert Counter(row["label"] for row in result.kept) == {"a": 40, "b": 10}
    again = applied("balance", rows, BalanceStep(at_most="4x"), blocks=7)
    assert again.kept == result.kept  # however the rows are cut
    assert Counter(row["label"] for row in applied("balance", rows, BalanceStep(at_most=7)).kept) == {"a": 7, "b": 7}
    with pytest.raises(InputError, match="no row has the field 'lable'"):
        applied("balance", rows, BalanceStep(by="lable", at_most=7))


def test_a_split_is_stratified_and_keeps_what_belongs_together() -> None:
    rows = as_rows(
        *(
            {"text": f"T {n % 300}", "label": "abc"[n % 3] if n % 300 else "a", "document": f"d{n % 100}"}
            for n in range(600)
        )
    )
    settings = SplitStep(test=0.1, eval=0.2, stratify="label", group="document")
    kept = applied("split", rows, settings).kept
    sides: dict[str, Counter[str]] = {side: Counter() for side in ("train", "eval", "test")}
    for row in kept:
        sides[row[SPLIT]][row["label"]] += 1
    assert 54 <= sides["test"].total() <= 60  # clusters of six rows, whole
    assert 108 <= sides["eval"].total() <= 120
    assert all(16 <= sides["test"][label] <= 24 for label in "abc")
    for field in ("document", "text"):
        where: dict[str, set[str]] = {}
        for row in kept:
            where.setdefault(row[field], set()).add(row[SPLIT])
        assert all(len(found) == 1 for found in where.values()), field


def test_rows_without_a_group_are_not_one() -> None:
    rows = as_rows({"text": "x", "document": "d"}, *({"text": f"row {number}"} for number in range(20)))
    sides = Counter(row[SPLIT] for row in applied("split", rows, SplitStep(test=0.2, group="document")).kept)
    assert sides == {"train": 17, "test": 4}


def test_rows_keep_their_side_when_the_data_grows() -> None:
    rows = as_rows(*({"text": f"row {n}"} for n in range(550)))
    few = {text_of(row): row[SPLIT] for row in applied("split", rows[:500], SplitStep(test=0.2)).kept}
    more = {text_of(row): row[SPLIT] for row in applied("split", rows, SplitStep(test=0.2)).kept}
    was = [text for text, side in few.items() if side == "test"]
    assert len(was) == 100
    assert sum(more[text] == "test" for text in was) >= 90


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clean", CleanStep(boilerplate=True)),
        ("labels", LabelsStep(case="fold")),
        ("dedupe", DedupeStep(near=0.9)),
        ("balance", BalanceStep(at_most=9)),
        ("split", SplitStep(test=0.2, stratify="label", group="text")),
        ("decontaminate", DecontaminateStep(against=[str(ROOT / "experiments" / "data" / "instructions.jsonl")])),
    ],
)
def test_a_block_may_have_no_rows_left(name: str, settings: Any) -> None:
    rows = as_rows(*({"text": f"my text {number}", "label": "ab"[number % 2]} for number in range(12)))
    step = step_of(name, settings)
    if isinstance(step, WholeStep):
        signs = [step.sign(block, settings, CONTEXT) for block in (rows, [], rows)]
        told = step.decide(signs, settings, CONTEXT)
        assert step.apply([], told[1], settings, CONTEXT) == Result()
    else:
        assert step.work([], settings, CONTEXT) == Result()


def test_too_few_rows_for_a_side_are_said() -> None:
    with pytest.raises(InputError, match="no rows that stay together fit into test"):
        applied("split", as_rows({"text": "a"}), SplitStep(test=0.1), blocks=1)
