"""What `check` says of data that is odd, and what it refuses."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ftlib.config.data import Labels
from ftlib.data import prepare
from ftlib.data.labels import alike, relabelled
from ftlib.errors import DataError

from .conftest import alpaca, make_tokenizer, section


def odd(path, rows, tokenizer, **settings) -> tuple[str, ...]:
    return prepare(section(path, **settings), rows, tokenizer).report.odd


def classes(*labels: object) -> list[dict[str, object]]:
    return [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)]


def test_good_data_has_no_notes(write, tokenizer) -> None:
    assert odd(write("x.jsonl", alpaca(20)), "answers", tokenizer) == ()


def test_repeats_within_training_rows_and_between_both_sides(write, tokenizer) -> None:
    train = write("x.jsonl", [*alpaca(10), {"instruction": "question  3?", "output": "The answer is 3."}])
    held_out = write("y.jsonl", [*alpaca(2), {"instruction": "Question 4?", "output": "No."}])
    notes = odd(train, "answers", tokenizer, eval=str(held_out))
    assert notes == (
        "1 training row repeats another (but for case and space)",
        "2 of 3 evaluation rows are trained on too, 1 of 3 evaluation rows ask what a training row asks: "
        "the evaluation looks better than it is",
        "the same prompt has different answers in 2 rows (1 case)",
    )


@pytest.mark.parametrize(
    ("kind", "rows", "note"),
    [
        ("labelled", [*classes(*"ab" * 10), {"text": "Text  0", "label": "b"}],
         "the same text has different labels in 2 rows (1 case)"),
        ("judged", [{"prompt": "q", "completion": "a", "label": number % 2} for number in range(10)],
         "the same answer is judged good and bad in 10 rows (1 case)"),
        ("pairs", [{"prompt": f"q{number // 2}", "chosen": "ab"[number % 2], "rejected": "ba"[number % 2]}
                   for number in range(10)], "the same two answers are preferred both ways in 10 rows (5 cases)"),
        ("judged", [{"prompt": f"q{number}", "completion": "a", "label": False} for number in range(10)],
         "all 9 training answers are judged bad: KTO learns from the difference between good and bad ones"),
        ("pairs", [{"prompt": f"q{number}", "chosen": "a", "rejected": "ab"[number % 2]} for number in range(20)],
         "'chosen' and 'rejected' are the same in 9 training rows, as the template writes them and data.max_length: "
         "1024 "
         "cuts them: nothing is learned from them"),
        ("prompts", [{"prompt": f"q{number}"} for number in range(10)],
         "9 training prompts come without an answer: rewards that compare give it nothing"),
        ("answers", [row | {"mood": "bad"} for row in alpaca(9)], "not used: 'mood' (9 rows)"),
    ],
)  # fmt: skip
def test_what_is_odd_is_counted_and_said(write, tokenizer, kind, rows, note) -> None:
    report = prepare(section(write("x.jsonl", rows)), kind, tokenizer).report
    assert note in report.odd
    assert f"note: {note}" in report.summary().splitlines()


@pytest.mark.parametrize("kind", ["pairs", "judged"])
def test_pairs_that_do_not_differ_teach_nothing(write, tokenizer, kind) -> None:
    rows = [{"prompt": f"q{number}", "chosen": "same", "rejected": "same"} for number in range(8)]
    with pytest.raises(DataError, match="in every row 'chosen' and 'rejected' are the same"):
        prepare(section(write("x.jsonl", rows)), kind, tokenizer)


TRIMMING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize("kind", ["pairs", "judged"])
def test_pairs_that_the_template_or_the_cut_makes_the_same_are_counted(write, kind) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TRIMMING
    trimmed = [{"prompt": f"q{number}", "chosen": "a", "rejected": " a\n"} for number in range(6)]
    cut = [{"prompt": f"q{number}", "chosen": "x " * 99 + "good", "rejected": "x " * 99 + "bad"} for number in range(6)]
    for same in (trimmed, cut):
        with pytest.raises(DataError, match=r"in every row .* the same, as the template .*max_length: 64 cuts them"):
            prepare(section(write("x.jsonl", same), max_length=64), kind, tokenizer)
        mixed = write("y.jsonl", [*same, {"prompt": "q", "chosen": "a", "rejected": "b"}])
        (note,) = odd(mixed, kind, tokenizer, max_length=64, eval_split=0)
        assert note.startswith("'chosen' and 'rejected' are the same in 6 training rows, as the template writes")


def test_the_good_and_the_bad_answer_of_two_rows_are_no_pair(write, tokenizer) -> None:
    rows = [{"prompt": "q", "completion": "a", "label": verdict} for verdict in (True, False)]
    (note,) = odd(write("x.jsonl", rows), "judged", tokenizer, eval_split=0)
    assert note == "the same answer is judged good and bad in 2 rows (1 case)"


def test_a_template_that_writes_no_stop_token_is_named(write) -> None:
    tokenizer = make_tokenizer(extra=("<|im_end|>",))
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (note,) = odd(write("x.jsonl", alpaca(9)), "answers", tokenizer)
    assert note.startswith(
        "the chat template writes no stop token after the assistant's turn (it writes '<|im_end|>', "
    )
    tokenizer.eos_token = "<|im_end|>"
    assert odd(write("x.jsonl", alpaca(9)), "answers", tokenizer) == ()


def test_a_stop_token_of_the_generation_config_is_one(write, tmp_path) -> None:
    tokenizer = make_tokenizer(extra=("<|im_end|>",))
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "model")
    ids = [tokenizer.convert_tokens_to_ids("<|im_end|>"), 50_256]  # GPT-2's, which this vocabulary does not have
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    tokenizer.name_or_path = str(tmp_path / "model")
    assert odd(write("x.jsonl", alpaca(9)), "answers", tokenizer) == ()


def test_labels_are_one_class_by_what_they_print_as(write, tokenizer) -> None:
    report = prepare(section(write("x.jsonl", classes(*[1, "1", 0, "0 ", 1.0, 0] * 5))), "labelled", tokenizer).report
    assert (report.labels, report.label_counts) == (("0", "1"), {"0": (14, 1), "1": (13, 2)})
    report = prepare(section(write("y.jsonl", classes(*[True, "true", False] * 5))), "labelled", tokenizer).report
    assert (report.labels, report.odd) == (("false", "true"), ())
    assert "rows a label, training + evaluation: true 9 + 1, false 4 + 1" in report.summary()


def test_labels_that_differ_in_case_or_space_are_named_with_the_way_to_map_them(write, tokenizer) -> None:
    path = write("x.jsonl", classes(*["Billing", "billing", "BILLING ", "Shipping"] * 10))
    (note,) = odd(path, "labelled", tokenizer)
    assert all(f"'{label}' (10)" in note for label in ("Billing", "billing", "BILLING"))
    assert "data.labels: {case: lower}" in note
    for labels in ({"case": "lower"}, {"map": {"Billing": "billing", "BILLING": "billing", "Shipping": "shipping"}}):
        report = prepare(section(path, labels=labels), "labelled", tokenizer).report
        assert (report.labels, report.odd) == (("billing", "shipping"), ())
    with pytest.raises(DataError, match=r"data.labels.map: no row has the label 'Biling'.*Did you mean 'Billing'"):
        prepare(section(path, labels={"map": {"Biling": "billing"}}), "labelled", tokenizer)


def test_a_label_of_the_evaluation_rows_that_differs_in_case_is_refused_with_the_way_to_map_it(
    write, tokenizer
) -> None:
    train = write("x.jsonl", classes(*["Out of stock", "Shipping"] * 4))
    for label in ("out-of-stock", "OUT OF STOCK"):
        held_out = str(write("y.jsonl", classes(label, "Shipping")))
        mapped = {"map": {label: "Out of stock"}}
        with pytest.raises(
            DataError, match=rf"'{label}' is in no training row, .* data.labels: {{map: {{'{label}': 'Out of st"
        ):
            prepare(section(train, eval=held_out), "labelled", tokenizer)
        report = prepare(section(train, eval=held_out, labels=mapped), "labelled", tokenizer).report
        assert report.labels == ("Out of stock", "Shipping")
    held_out = str(write("y.jsonl", classes("Shiping")))
    with pytest.raises(DataError, match=r"could never be predicted. Did you mean 'Shipping'\?$"):
        prepare(section(train, eval=held_out), "labelled", tokenizer)


@pytest.mark.parametrize("label", [0.5, float("nan")])
def test_a_broken_number_is_no_class(write, tokenizer, label) -> None:
    with pytest.raises(DataError, match="x.jsonl:1: 'label' must be text, but is a float"):
        prepare(section(write("x.jsonl", classes(label, "a", "b"))), "labelled", tokenizer)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["a", "b"], None),
        (["out of stock", "Out of  Stock"], "{case: lower}"),
        (["out of stock", "out-of-stock"], "{map: {'out-of-stock': 'out of stock'}} makes one class"),
        (["out-of-stock", "out_of_stock"], "{map: {'out_of_stock': 'out-of-stock'}}"),
        (["1", "1.0"], "{map: {'1.0': '1'}}"),
        (["-1", "1", "+1"], None),
        (["A", "A-", "a+"], None),
        (["11", "1-1", "1_1", "1e1", "10", "011"], None),
        (["B-2", "B2", "c_", "c"], None),
    ],
)
def test_which_labels_are_alike(labels, sentence) -> None:
    found = alike(Counter(labels))
    assert (found is None) if sentence is None else sentence.replace("{case: lower}", "map") in found


def test_a_verdict_may_be_mapped(write, tokenizer) -> None:
    rows = [{"prompt": f"q{number}", "completion": "a", "label": ["fine", "poor"][number % 2]} for number in range(10)]
    path = write("x.jsonl", rows)
    with pytest.raises(DataError, match="'label' must be true or false, but is 'fine'"):
        prepare(section(path), "judged", tokenizer)
    data = section(path, labels={"map": {"fine": True, "poor": False}})
    assert prepare(data, "judged", tokenizer).report.label_counts == {"false": (5, 0), "true": (4, 1)}
    assert relabelled({"label": 1}, Labels(map={1: "yes"})) == {"label": "yes"}
