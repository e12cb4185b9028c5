"""From a data section to rows of tokens: what comes out, what is refused, and what the cache saves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from ftlib.data import DataReport, load_prepared, prepare, prepare_again
from ftlib.data import cache as cache_module
from ftlib.data.read import Source
from ftlib.data.templates import ALPACA, CHATML
from ftlib.errors import DataError, FtlibError

from .conftest import alpaca, make_tokenizer, section, trained_texts


def answers(count: int) -> set[str]:
    return {f"The answer is {number}.</s>" for number in range(count)}


def texts(rows, tokenizer) -> list[str]:
    return [tokenizer.decode(row["input_ids"]) for row in rows]


def test_alpaca_end_to_end(write, tokenizer, home) -> None:
    prepared = prepare(section(write("x.jsonl", alpaca(20))), "answers", tokenizer)
    assert prepared.train.column_names == prepared.eval.column_names == ["input_ids", "labels"]
    assert prepared.path == home / "cache" / "data" / prepared.hash
    assert (len(prepared.train), len(prepared.eval)) == (18, 2)
    trained, held_out = (trained_texts(rows, tokenizer) for rows in (prepared.train, prepared.eval))
    assert set(trained) | set(held_out) == answers(20)
    assert not set(trained) & set(held_out)
    assert trained == sorted(trained, key=lambda text: int(text.split()[-1].split(".")[0]))
    assert tokenizer.chat_template == prepared.chat_template == ALPACA


def test_the_report(write, tokenizer) -> None:
    prepared = prepare(section(write("x.jsonl", alpaca(20)), max_length=200), "answers", tokenizer)
    report = prepared.report
    assert (report.format, report.template, report.rows_read, report.train_rows, report.eval_rows) == (
        "alpaca", "alpaca", 20, 18, 2,
    )  # fmt: skip
    lengths = [len(row["input_ids"]) for row in prepared.train]
    assert report.train_tokens == sum(lengths)
    assert report.trained_tokens == sum(label != -100 for row in prepared.train for label in row["labels"])
    assert (report.lengths.min, report.lengths.max) == (min(lengths), max(lengths))
    assert report.lengths.min <= report.lengths.p50 <= report.lengths.p95 <= report.lengths.max
    assert DataReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert report.summary().splitlines()[0] == (
        "data: 18 rows for training, 2 for evaluation (alpaca, template alpaca)"
    )
    assert len(report.summary().splitlines()) == 2


def test_the_split_is_seeded(write, tokenizer) -> None:
    path = write("x.jsonl", alpaca(30))
    held_out = [
        tuple(
            trained_texts(
                prepare(section(path, split_seed=seed, eval_split=share), "answers", tokenizer).eval, tokenizer
            )
        )
        for seed, share in ((1, 0.2), (1, 0.2), (2, 0.2), (1, 0.01), (1, 0.99))
    ]
    assert held_out[0] == held_out[1] != held_out[2]
    assert [len(part) for part in held_out] == [6, 6, 6, 1, 29]
    with pytest.raises(DataError, match="needs at least 2 rows"):
        prepare(section(write("one.jsonl", alpaca(1))), "answers", tokenizer)


def test_an_evaluation_file_of_its_own(write, tokenizer) -> None:
    data = section(write("x.jsonl", alpaca(1)), eval=str(write("y.json", alpaca(3))))
    prepared = prepare(data, "answers", tokenizer)
    assert (len(prepared.train), len(prepared.eval), prepared.report.rows_read) == (1, 3, 4)


def test_conversations_train_every_answer_and_choose_chatml(write, tokenizer) -> None:
    talk = [
        {"from": who, "value": said} for who, said in zip(("human", "gpt") * 2, ("a?", "b.", "c?", "d."), strict=True)
    ]
    prepared = prepare(section(write("x.json", [{"conversations": talk}] * 2)), "answers", tokenizer)
    assert prepared.chat_template == CHATML
    assert prepared.report.template == "chatml"
    assert trained_texts(prepared.train, tokenizer) == ["b.<|im_end|></s>\n|d.<|im_end|></s>\n"]


def test_the_completion_alone_is_trained_on_where_the_prompt_holds_answers(write, tokenizer) -> None:
    prompt = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    row = {"prompt": prompt, "completion": [{"role": "assistant", "content": "end"}]}
    prepared = prepare(section(write("x.json", [row] * 2)), "answers", tokenizer)
    assert trained_texts(prepared.train, tokenizer) == ["end<|im_end|></s>\n"]


def test_text_rows_and_template_none(write) -> None:
    tokenizer = make_tokenizer(bos=True)
    prepared = prepare(section(write("x.jsonl", [{"text": "Paris"}] * 3)), "answers", tokenizer)
    assert texts(prepared.train, tokenizer) == trained_texts(prepared.train, tokenizer) == ["<s>Paris</s>"] * 2
    assert (prepared.chat_template, tokenizer.chat_template, prepared.report.template) == (None, None, "none")

    rows = [{"prompt": "2 + 2 =", "completion": " 4"}] * 3
    plain = prepare(section(write("y.jsonl", rows), template="none"), "answers", tokenizer)
    assert texts(plain.train, tokenizer) == ["<s>2 + 2 = 4</s>"] * 2
    assert trained_texts(plain.train, tokenizer) == [" 4</s>"] * 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"instruction": "q", "output": ""}', "'output' is empty"),
        ('{"instruction": "q"}', "'output' is missing"),
        ('{"instruction": ', "not valid JSON"),
        ("3", "a row must be an object"),
    ],
)
def test_a_bad_row_ends_it_or_is_skipped_and_counted(write, tokenizer, row, reason) -> None:
    lines = [json.dumps(example) for example in alpaca(30)]
    lines[16] = row
    path = write("train.jsonl", "\n".join(lines))
    with pytest.raises(DataError, match=rf"^train.jsonl:17: {reason}.*data.on_bad_row: skip"):
        prepare(section(path), "answers", tokenizer)
    report = prepare(section(path, on_bad_row="skip"), "answers", tokenizer).report
    assert (report.rows_read, report.skipped, report.train_rows + report.eval_rows) == (30, 1, 29)
    assert report.skipped_rows[0].startswith(f"train.jsonl:17: {reason}")
    assert f"skipped: 1 row that cannot be used, first train.jsonl:17: {reason}" in report.summary()


def test_many_bad_rows_are_counted_and_twenty_named(write, tokenizer) -> None:
    rows = [*alpaca(5), *[{"instruction": "q", "output": ""}] * 50]
    report = prepare(section(write("x.jsonl", rows), on_bad_row="skip"), "answers", tokenizer).report
    assert (report.skipped, len(report.skipped_rows)) == (50, 20)


def test_nothing_but_bad_rows_names_three(write, tokenizer) -> None:
    path = write("x.jsonl", [{"instruction": "q", "output": ""}] * 5)
    with pytest.raises(
        DataError, match=r"no row can be used: x.jsonl:1: .*x.jsonl:2: .*x.jsonl:3: 'output' is empty.$"
    ):
        prepare(section(path, on_bad_row="skip"), "answers", tokenizer)


def test_a_row_that_the_template_refuses_is_a_bad_row(write, tokenizer) -> None:
    tokenizer.chat_template = "{{- raise_exception('never') if 'Question 3?' == messages[0].content -}}" + CHATML
    path = write("x.jsonl", alpaca(6))
    with pytest.raises(DataError, match=r"x.jsonl:4: the chat template does not take it: never"):
        prepare(section(path), "answers", tokenizer)
    assert prepare(section(path, on_bad_row="skip"), "answers", tokenizer).report.skipped == 1


@pytest.mark.parametrize(
    ("row", "method"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "dpo"),
        ({"prompt": "q", "completion": "a", "label": True}, "kto"),
        ({"text": "t", "label": 1}, "classify"),
    ],
)
def test_rows_for_another_method_say_which(write, tokenizer, row, method) -> None:
    with pytest.raises(DataError, match=f"rows, which are for method.type: {method}; this method needs"):
        prepare(section(write("x.jsonl", [row] * 3)), "answers", tokenizer)


def test_truncation_is_counted_and_too_little_room_is_an_error(write, tokenizer) -> None:
    path = write("x.jsonl", [{"prompt": "a" * size, "completion": "b" * 20} for size in (4, 4, 6, 30)])
    data = section(path, template="none", max_length=12, eval=str(path))
    report = prepare(data, "answers", tokenizer).report
    assert (report.truncated, report.dropped, report.train_rows, report.lengths.max) == (8, 2, 3, 12)
    assert "8 rows truncated to 12\ndropped: 2 rows with nothing to train on within 12 tokens" in report.summary()
    with pytest.raises(DataError, match=r"data.max_length: 3 tokens .* shortest prompt alone has 4 tokens. Raise"):
        prepare(data.model_copy(update={"max_length": 3}), "answers", tokenizer)


def test_a_tokenizer_without_eos_is_refused(write, tokenizer) -> None:
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no eos token"):
        prepare(section(write("x.jsonl", alpaca(3))), "answers", tokenizer)


def test_pretraining_cuts_blocks_from_one_stream(write, tokenizer) -> None:
    path = write("x.jsonl", [{"text": f"Text number {number}. "} for number in range(40)])
    prepared = prepare(section(path, max_length=16), "text", tokenizer)
    assert {len(row["input_ids"]) for row in prepared.train} == {16}
    assert all(row["input_ids"] == row["labels"] for row in prepared.train)
    stream = "".join(texts(prepared.train, tokenizer)).split("</s>")
    held_out = "".join(texts(prepared.eval, tokenizer)).split("</s>")[0]
    assert stream[0].startswith("Text number ")
    assert held_out not in stream
    assert "blocks for training" in prepared.report.summary()


def test_pretraining_takes_other_formats_whole(write, tokenizer) -> None:
    prepared = prepare(section(write("x.jsonl", alpaca(4)), max_length=4096), "text", tokenizer)
    (text,) = texts(prepared.train, tokenizer)  # one block, for there is no full one
    assert text.count("Below is an instruction") == text.count("</s>") == 3
    labelled = prepare(section(write("y.jsonl", [{"text": "t", "label": 1}] * 3)), "text", tokenizer)
    assert texts(labelled.train, tokenizer) == ["t</s>t</s>"]
    with pytest.raises(DataError, match=r"method.type: dpo"):
        prepare(section(write("z.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])), "text", tokenizer)


def test_a_second_call_neither_reads_nor_tokenizes(write, tokenizer, monkeypatch) -> None:
    data = section(write("x.jsonl", alpaca(20)))
    first = prepare(data, "answers", tokenizer)

    def never(*_, **__):
        raise AssertionError("done again")

    monkeypatch.setattr(Source, "rows", never)
    monkeypatch.setattr(type(tokenizer), "__call__", never)
    again, fresh = prepare(data, "answers", tokenizer), make_tokenizer()
    assert (again.path, again.report) == (first.path, first.report)
    assert again.train.to_dict() == first.train.to_dict()
    assert prepare(data.model_copy(update={"packing": True}), "answers", fresh).hash == first.hash
    assert fresh.chat_template == ALPACA


def test_a_worker_loads_what_was_prepared(write, tokenizer) -> None:
    prepared = prepare(section(write("x.jsonl", alpaca(20))), "answers", tokenizer)
    loaded = load_prepared(prepared.path)
    assert (loaded.hash, loaded.report, loaded.chat_template) == (prepared.hash, prepared.report, ALPACA)
    assert loaded.eval.to_dict() == prepared.eval.to_dict()
    with pytest.raises(DataError, match="no prepared data"):
        load_prepared(prepared.path.parent)


def test_the_hash_is_of_all_that_matters(write, tokenizer) -> None:
    path = write("x.jsonl", alpaca(20))
    data = section(path)
    hashes = [prepare(data, "answers", tokenizer).hash]
    hashes.append(prepare(section(path, max_length=512), "answers", tokenizer).hash)
    hashes.append(prepare(data, "text", tokenizer).hash)
    hashes.append(prepare(data, "answers", make_tokenizer(vocabulary=300)).hash)
    hashes.append(prepare(data, "answers", make_tokenizer(bos=True)).hash)
    with_template = make_tokenizer()
    with_template.chat_template = CHATML
    hashes.append(prepare(data, "answers", with_template).hash)
    write("x.jsonl", alpaca(21))
    hashes.append(prepare(data, "answers", tokenizer).hash)
    assert len(set(hashes)) == 7


def test_padding_a_batch_is_no_other_tokenizer(write, tokenizer) -> None:
    data = section(write("x.jsonl", alpaca(20)))
    first = prepare(data, "answers", tokenizer)
    tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=2)
    assert prepare(data, "answers", tokenizer).hash == first.hash


@pytest.mark.parametrize(
    "damage", ["report.json", "chat_template.jinja", "eval/state.json", "train/data-00000-of-00001.arrow"]
)
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_damaged_cache_is_made_again(write, tokenizer, damage, how) -> None:
    data = section(write("x.jsonl", alpaca(20)))
    path = prepare(data, "answers", tokenizer).path / damage
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif damage != "chat_template.jinja":
        path.write_bytes(content[: len(content) // 2])
    prepared = prepare(data, "answers", tokenizer)
    assert len(prepared.train) == 18
    assert path.read_bytes() == content
    assert [entry.name for entry in prepared.path.parent.iterdir()] == [prepared.hash]


def test_a_cache_with_the_rows_of_another_is_made_again(write, tokenizer) -> None:
    data = section(write("x.jsonl", alpaca(20)))
    path = prepare(data, "answers", tokenizer).path
    shutil.rmtree(path / "eval")
    shutil.copytree(path / "train", path / "eval")
    assert len(prepare(data, "answers", tokenizer).eval) == 2


def test_of_two_that_race_the_second_takes_the_firsts(write, tokenizer, monkeypatch) -> None:
    data = section(write("x.jsonl", alpaca(20)))
    first = prepare(data, "answers", tokenizer)
    inode = (first.path / "report.json").stat().st_ino
    original, calls = cache_module.load_prepared, []

    def absent_at_first(path):
        calls.append(path)
        if len(calls) == 1:
            raise DataError("not there yet")
        return original(path)

    monkeypatch.setattr("ftlib.data.pipeline.load_prepared", absent_at_first)
    assert prepare(data, "answers", make_tokenizer()).hash == first.hash
    assert len(calls) == 1  # it was built a second time, and thrown away
    assert (first.path / "report.json").stat().st_ino == inode
    assert [entry.name for entry in first.path.parent.iterdir()] == [first.hash]


def test_a_cache_that_cannot_be_written_says_so(write, tokenizer, tmp_path) -> None:
    write("blocked", "a file in the place of a directory")
    with pytest.raises(FtlibError, match=r"cannot write prepared data .* FTLIB_HOME") as caught:
        prepare(section(write("x.jsonl", alpaca(5))), "answers", tokenizer, cache=tmp_path / "blocked")
    assert caught.value.exit_status == 1


def test_progress_bars_stay_as_they_were(write, tokenizer, capfd) -> None:
    prepare(section(write("x.jsonl", alpaca(5))), "answers", tokenizer)
    assert not datasets.are_progress_bars_disabled()
    assert capfd.readouterr() == ("", "")


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, ftlib.data; print([m for m in ('torch', 'datasets', 'transformers', 'ray') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


def test_replayed_rows_are_a_fraction_of_the_training_rows(write, tokenizer) -> None:
    """Of another format, too; rows held out for evaluation are the new task's alone."""
    old = write("old.jsonl", [{"prompt": f"old {n}", "completion": f"Old answer {n}."} for n in range(50)])
    replay = {"train": str(old), "fraction": 0.25}
    data = section(write("new.jsonl", alpaca(20)), replay=replay)
    prepared = prepare(data, "answers", tokenizer)
    trained, held_out = (trained_texts(rows, tokenizer) for rows in (prepared.train, prepared.eval))
    assert (len(trained), len(held_out)) == (24, 2)
    assert sum(text.startswith("Old") for text in trained) == 6
    assert not any(text.startswith("Old") for text in held_out)
    assert prepare(section(write("new.jsonl", alpaca(20))), "answers", tokenizer).hash != prepared.hash
    few = prepare(section(write("new.jsonl", alpaca(20)), replay=replay | {"fraction": 0.9}), "answers", tokenizer)
    assert len(few.train) == 18 + 50


def test_a_replay_that_is_not_there_is_named(write, tokenizer) -> None:
    data = section(write("new.jsonl", alpaca(4)), replay={"train": "old.jsonl"})
    with pytest.raises(DataError, match=r"data.replay.train: no such file"):
        prepare(data, "answers", tokenizer)


def lines(count: int, word: str) -> list[dict[str, str]]:
    return [{"prompt": f"Say {word} {number}.", "completion": f"{word} {number}"} for number in range(count)]


def test_several_training_sets_are_mixed_by_weight(write, tokenizer) -> None:
    cats, dogs = write("cats.jsonl", lines(20, "cat")), write("dogs.jsonl", alpaca(10))
    held_out = str(write("held.jsonl", lines(2, "held")))

    def prepared(*weights: float, seed: int = 1):
        paths = zip((cats, dogs), weights, strict=True)
        train = [{"path": str(path), "weight": weight} for path, weight in paths]
        return prepare(section(train, eval=held_out, split_seed=seed), "answers", tokenizer)

    once = prepared(1, 1)
    assert (len(once.train), once.report.rows_read) == (30, 32)
    assert once.report.format == "prompt_completion + alpaca"
    mixed = prepared(0.5, 2.5)
    seen = trained_texts(mixed.train, tokenizer)
    of_dogs = [seen.count(text) for text in sorted(answers(10))]
    assert len(set(seen) - answers(10)) == 10  # a half of the cats, each once
    assert sorted(of_dogs) == [2] * 5 + [3] * 5
    again, other = prepared(0.5, 2.5), prepared(0.5, 2.5, seed=2)
    assert (again.hash, mixed.hash) == (mixed.hash, prepared(0.5, 2.5).hash)
    assert trained_texts(other.train, tokenizer) != seen
    assert len({once.hash, mixed.hash, other.hash}) == 3
    with pytest.raises(DataError, match="the weights leave no row"):
        prepared(0.01, 0.01)


def test_rows_are_held_out_before_they_are_repeated(write, tokenizer) -> None:
    train = [{"path": str(write("cats.jsonl", lines(20, "cat"))), "weight": 3}]
    prepared = prepare(section(train, eval_split=0.2), "answers", tokenizer)
    trained, held_out = (trained_texts(rows, tokenizer) for rows in (prepared.train, prepared.eval))
    assert (len(trained), len(held_out)) == (48, 4)
    assert not set(trained) & set(held_out)


def test_each_training_set_has_a_format_and_columns_of_its_own(write, tokenizer) -> None:
    named = [{"question": f"{number}?", "answer": str(number)} for number in range(4)]
    columns = {"prompt": "question", "completion": "answer"}
    path = str(write("named.jsonl", named))
    train = [{"path": path, "columns": columns}, {"path": str(write("x.jsonl", alpaca(4)))}]
    assert prepare(section(train), "answers", tokenizer).report.rows_read == 8
    with pytest.raises(DataError, match=r"data\.train\[0\]\.path: .*named.jsonl: its columns .* fit no format"):
        prepare(section([path]), "answers", tokenizer)
    with pytest.raises(DataError, match=r"data\.train\[0\]\.path: no such file or folder: 'nowhere.jsonl'"):
        prepare(section(["nowhere.jsonl"]), "answers", tokenizer)
    text = write("text.jsonl", [{"text": "a plain text"}])
    with pytest.raises(DataError, match="plain text and conversations do not mix"):
        prepare(section([str(text), {"path": path, "columns": columns}]), "answers", tokenizer)


@pytest.mark.parametrize("rows", ["answers", "pairs", "labelled"])
def test_nothing_need_be_held_out(rows, write, tokenizer) -> None:
    values = {
        "answers": alpaca(3),
        "pairs": [{"prompt": "a?", "chosen": f"b{n}", "rejected": "c"} for n in range(3)],
        "labelled": [{"text": f"t{n}", "label": n % 2} for n in range(3)],
    }
    prepared = prepare(section(write("x.jsonl", values[rows]), eval_split=0), rows, tokenizer)
    assert (len(prepared.train), len(prepared.eval), prepared.held_out) == (3, 0, None)
    assert prepared.train.column_names == prepared.eval.column_names


def test_a_run_goes_on_with_the_rows_that_it_began_with(write, tokenizer, tmp_path) -> None:
    data = section(write("x.jsonl", alpaca(20)))
    begun = prepare(data, "answers", tokenizer)
    again, changed = prepare_again(data, "answers", make_tokenizer(), begun.hash)
    assert (again.hash, changed) == (begun.hash, None)

    write("x.jsonl", alpaca(21))
    fresh = make_tokenizer()
    again, changed = prepare_again(data, "answers", fresh, begun.hash)
    assert (again.hash, len(again.train), fresh.chat_template) == (begun.hash, 18, ALPACA)
    assert (
        changed
        == "the data gives other rows than when the run began: the run goes on with the rows that it began with "
        "(18 rows)"
    )
    (tmp_path / "x.jsonl").unlink()
    again, changed = prepare_again(data, "answers", make_tokenizer(), begun.hash)
    assert again.hash == begun.hash
    assert "the data of the run is not there any more (data.train: no such file" in str(changed)


def test_changed_data_whose_old_rows_are_gone_are_refused(write, tokenizer) -> None:
    data = section(write("x.jsonl", alpaca(20)))
    begun = prepare(data, "answers", tokenizer)
    write("x.jsonl", alpaca(21))
    with pytest.raises(
        DataError, match="gives other rows than when the run began, and some of its trials read it themselves"
    ):
        prepare_again(data, "answers", tokenizer, begun.hash, only_unchanged=True)
    with pytest.raises(DataError, match="no longer has its rows"):  # no path is made of what a foreign run says
        prepare_again(data, "answers", tokenizer, f"../{begun.path.parent.name}/{begun.hash}")
    shutil.rmtree(begun.path)
    for hash in (begun.hash, "../../elsewhere"):
        with pytest.raises(
            DataError, match=r"gives other rows than when the run began, and .* no longer has its rows.*Put the old"
        ):
            prepare_again(data, "answers", tokenizer, hash)


def test_data_that_moved_are_the_same_data(write, tokenizer) -> None:
    here, there = (section(write(name, alpaca(20))) for name in ("a/x.jsonl", "b/x.jsonl"))
    assert prepare(here, "answers", tokenizer).hash == prepare(there, "answers", tokenizer).hash


def test_what_does_not_fit_goes_before_rows_are_held_out(write, tokenizer) -> None:
    rows = [{"prompt": "x " * 300, "completion": "y"}] * 8 + [{"prompt": f"q{n}", "completion": "a"} for n in range(5)]
    report = prepare(section(write("x.jsonl", rows), max_length=128, eval_split=0.4), "answers", tokenizer).report
    assert (report.train_rows, report.eval_rows, report.dropped) == (3, 2, 8)
    held_out = write("y.jsonl", rows[:2])
    with pytest.raises(DataError, match=r"128 tokens leave nothing of data.eval, whose shortest prompt alone has"):
        prepare(section(write("z.jsonl", rows[8:]), eval=str(held_out), max_length=128), "answers", tokenizer)
    with pytest.raises(DataError, match=r"nothing to train on: the shortest prompt alone has"):
        prepare(section(held_out, max_length=128), "answers", tokenizer)


@pytest.mark.parametrize("kind", ["pairs", "judged"])
def test_pairs_that_do_not_fit_go_before_rows_are_held_out(write, tokenizer, kind) -> None:
    asked = ["x " * 300] * 8 + [f"q{number}" for number in range(5)]
    pairs = [{"prompt": prompt, "chosen": "a", "rejected": "b"} for prompt in asked]
    judged = [{"prompt": prompt, "completion": "a", "label": number % 2} for number, prompt in enumerate(asked)]
    for rows in (pairs, judged) if kind == "judged" else (pairs,):
        factor = 2 if kind == "judged" and rows is pairs else 1  # a pair makes two judged rows
        path = write("x.jsonl", rows)
        report = prepare(section(path, max_length=128, eval_split=0.4), kind, tokenizer).report
        assert (report.train_rows, report.eval_rows, report.dropped) == (3 * factor, 2 * factor, 8)
        with pytest.raises(DataError, match=r"nothing to train on: the shortest prompt alone has"):
            prepare(section(write("y.jsonl", rows[:8]), max_length=128), kind, tokenizer)


@pytest.mark.parametrize("kind", ["pairs", "judged"])
def test_tools_and_calls_reach_the_template_of_pairs(write, tokenizer, kind) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    chosen = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    rows = [
        {
            "prompt": f"Oslo {number}?",
            "chosen": chosen,
            "rejected": "no",
            "tools": [{"name": "weather", "parameters": {}}],
        }
        for number in range(3)
    ]
    prepared = prepare(section(write("x.jsonl", rows), eval_split=0), kind, tokenizer)
    answers = "chosen_ids" if kind == "pairs" else "completion_ids"
    row = prepared.train[0]
    assert '<tools>\n{"type": "function", "function": {"name": "weather"' in tokenizer.decode(row["prompt_ids"])
    assert tokenizer.decode(row[answers]).startswith('<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}')
    with pytest.raises(DataError, match=r"x.jsonl:1: the chat template leaves out (the 'tool_calls'|'tools')"):
        prepare(section(write("x.jsonl", rows), template="alpaca"), kind, make_tokenizer())


def test_rows_that_say_that_they_are_not_trained_on_are_left_out_and_counted(write, tokenizer) -> None:
    rows = [row | {"weight": number % 2} for number, row in enumerate(alpaca(10))]
    report = prepare(section(write("x.jsonl", rows)), "answers", tokenizer).report
    assert (report.train_rows, report.eval_rows, report.unweighted) == (4, 1, 5)
    assert "left out: 5 rows of weight 0" in report.summary()
    with pytest.raises(DataError, match="every one says itself that it is not trained on"):
        prepare(section(write("y.jsonl", rows[::2])), "answers", tokenizer)


def test_turns_that_are_not_trained_on_cannot_be_pretrained_on(write, tokenizer) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]
    turns += [{"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]
    path = write("x.jsonl", [{"messages": turns}] * 3)
    assert trained_texts(prepare(section(path), "answers", tokenizer).train, tokenizer)[0] == "b<|im_end|></s>\n"
    with pytest.raises(DataError, match=r"x.jsonl:1: turn 1 is not to be trained on, and method.type: pretrain"):
        prepare(section(path), "text", tokenizer)


@pytest.mark.parametrize("rows", ["answers", "text", "labelled"])
def test_a_text_that_begins_with_the_bos_has_one(write, rows) -> None:
    tokenizer = make_tokenizer(bos=True)
    lines = [{"text": f"<s>number {number}</s>", "label": number % 2} for number in range(6)]
    if rows == "answers":
        lines = [{"text": line["text"]} for line in lines]
    prepared = prepare(section(write("x.jsonl", lines), max_length=64), rows, tokenizer)
    for row in prepared.eval:
        assert tokenizer.decode(row["input_ids"]).count("<s>") == 1
        assert tokenizer.decode(row["input_ids"]).startswith("<s>number ")


def test_prompts_go_with_their_columns_to_the_rewards(write, tokenizer) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{n}+2?"}], "ground_truth": str(n + 2), "level": n if n % 2 else "x"}
        for n in range(8)
    ]
    prepared = prepare(section(write("x.jsonl", rows)), "prompts", tokenizer)
    assert sorted(prepared.train.column_names) == ["answer", "ground_truth", "level", "prompt"]
    for row in prepared.train:
        number = int(row["prompt"][-1]["content"][0])
        assert row["answer"] == row["ground_truth"] == str(number + 2)
        assert row["level"] == (str(number) if number % 2 else "x")  # numbers and words in one column: as they print
    only = prepare(section(write("y.jsonl", [{"prompt": f"q{n}"} for n in range(4)])), "prompts", tokenizer)
    assert set(only.train["answer"]) == {""}
    with pytest.raises(DataError, match=r"has prompts and no column of answers .* data.columns: \{completion: ...\}"):
        prepare(section(write("y.jsonl", [{"prompt": f"q{n}"} for n in range(4)])), "answers", tokenizer)
