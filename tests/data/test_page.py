"""docs/data.md is true: its examples are read as they are marked, its refusals are said in its words.

A block of examples is marked "```ENDING FORMAT [KIND] [COLUMNS]": the ending of the file that it is, the format that
`data.format: auto` finds, the kind of rows where it is not the usual one, and `data.columns`. A block of
"```text refused [KIND]" has rows, and below each the reason for which it is refused.
"""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
import yaml

from ftlib.config.data import DataSection, TemplateName
from ftlib.config.methods import MethodSection
from ftlib.data import fields, formats, kinds, prepare, prompts, turns
from ftlib.data.formats import detect
from ftlib.data.read import READERS, columns_of, find_source, read_rows
from ftlib.errors import DataError
from tests.conftest import ROOT

from .conftest import make_tokenizer, section

PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\S+)[ ]?(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
BLOCKS = [(language, marks, text) for language, marks, text in FENCED.findall(PAGE)]
EXAMPLES = [block for block in BLOCKS if f".{block[0]}" in READERS and block[1]]
USUAL = {"preference": "pairs", "kto": "judged", "classification": "labelled", "prompt_only": "prompts"}
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))
FLOWING = " ".join(PAGE.split())


def marked(marks: str) -> tuple[str, str, dict[str, str]]:
    """(format, kind, columns) of an example."""
    words, brace, columns = marks.partition("{")
    name, *kind = words.split()
    return name, kind[0] if kind else USUAL.get(name, "answers"), yaml.safe_load(brace + columns) if brace else {}


def refused() -> list[tuple[str, str, str]]:
    """(row, reason, kind) of each row that the page says is refused."""
    found: list[tuple[str, str, str]] = []
    for language, marks, text in BLOCKS:
        if language == "text" and marks.startswith("refused"):
            lines = re.split(r"^(?=\{)", text, flags=re.MULTILINE)[1:]
            rows = [line.partition("\n") for line in lines]
            found += [(row, " ".join(reason.split()), marks.partition(" ")[2]) for row, _, reason in rows]
    return found


@pytest.mark.parametrize(("ending", "marks", "text"), EXAMPLES)
def test_an_example_is_read_as_the_format_that_it_is_marked_with(write, tokenizer, ending, marks, text) -> None:
    name, kind, columns = marked(marks)
    settings: dict[str, Any] = {"columns": columns, "eval_split": 0}
    settings |= {"format": name} if name == "stanford" else {}
    if "chat_template_kwargs" in text:  # which only some templates read
        tokenizer = make_tokenizer(extra=("<|im_end|>",))
        tokenizer.eos_token, settings["template"] = "<|im_end|>", "qwen3"
    data = section(write(f"x.{ending}", text), **settings)
    rows = read_rows(find_source("train", data), data)
    assert [row.problem for row in rows] == [""] * len(rows)
    assert detect("auto", columns_of(rows), "x") == {"stanford": "alpaca"}.get(
        name, name
    )  # which is named, and never found
    for row in rows:
        try:
            kinds.KINDS[kind].read(name, row.fields)
        except fields.Unweighted:
            assert row.fields["weight"] == 0
    report = prepare(data, kind, tokenizer).report
    assert (report.format, report.rows_read, report.skipped) == (name, len(rows), 0)
    assert not any(note.startswith("not used") for note in report.odd)


def test_the_parquet_file_that_python_writes_is_read(tmp_path, monkeypatch, tokenizer) -> None:
    ((name, text),) = ((marks, text) for language, marks, text in BLOCKS if language == "python")
    monkeypatch.chdir(tmp_path)
    exec(text, {})
    report = prepare(section("train.parquet", eval_split=0), "answers", tokenizer).report
    assert (report.format, report.train_rows) == (name, 1)


def test_every_format_and_every_kind_of_file_has_an_example() -> None:
    assert {marked(marks)[0] for _, marks, _ in EXAMPLES} == set(formats.COLUMNS)
    assert {f".{ending}" for ending, _, _ in EXAMPLES} == set(READERS) - {".parquet"}  # its example is in Python


@pytest.mark.parametrize(("row", "reason", "kind"), refused())
def test_a_row_is_refused_for_the_reason_that_stands_below_it(write, tokenizer, row, reason, kind) -> None:
    path = write("x.jsonl", f"{row}\n" * 2)
    name = detect("auto", json.loads(row), "x")
    with pytest.raises(DataError) as caught:
        prepare(section(path), kind or USUAL.get(name, "answers"), tokenizer)
    assert str(caught.value) == f"x.jsonl:1: {reason}. (data.on_bad_row: skip leaves such rows out.)"


def test_there_are_refusals_on_the_page() -> None:
    assert len(refused()) > 30


def test_the_sentences_on_whole_files_are_said(write, tokenizer, tmp_path) -> None:
    csv = {
        "notes.txt": "Paris",
        "a.csv": "question,reply\na,b\n",
        "b.csv": "prompt,completion,label\na,b,1\n",
        "c.csv": "prompt\na\n",
        "d.csv": "text,label\nx,a\ny,a\nz,a\n",
        "e.csv": "text,label\nx,a\ny,b\nz,a\n",
        "f.csv": "text,label\nx,c\n",
        "g.csv": "text\nx\ny\n",
        "h.csv": "prompt,completion\n" + "x " * 400 + ",y\n",
    }
    path = {name: str(write(name, text)) for name, text in csv.items()}
    said = []
    for kind, train, settings in (
        *[("answers", path[name], {}) for name in ("notes.txt", "a.csv", "b.csv", "c.csv")],
        ("labelled", path["d.csv"], {}),
        ("labelled", path["e.csv"], {"eval": path["f.csv"]}),
        ("answers", [path["g.csv"], path["h.csv"]], {}),
        ("answers", path["h.csv"], {"max_length": 64}),
    ):
        with pytest.raises(DataError) as caught:
            prepare(section(train, **settings), kind, tokenizer)
        said.append(re.sub(r"\d+", "N", str(caught.value).replace(f"{tmp_path}/", "")))
    quoted = re.findall(r"^- `(.+?)`", PAGE.rpartition("Some errors are about the whole file")[2], re.MULTILINE)
    sentences = [re.sub(r"\d+", "N", sentence.removesuffix(".")) for sentence in quoted]
    assert len(sentences) == len(said)
    assert [(one, other) for one, other in zip(sentences, said, strict=True) if one not in other] == []


@pytest.mark.parametrize("text", [text for language, _, text in BLOCKS if language == "yaml"])
def test_a_section_of_an_experiment_is_one(text) -> None:
    DataSection.model_validate(yaml.safe_load(text)["data"])


def table(heading: str) -> list[list[str]]:
    """The cells of the table below a heading line."""
    lines = PAGE.partition(f"\n{heading}\n")[2].splitlines()[1:]
    rows = lines[: next(index for index, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def names_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_table_of_methods_is_that_of_the_kinds() -> None:
    told = {method: names_in(read) for first, read in table("| `method.type` | formats that it reads |")
            for method in names_in(first)}  # fmt: skip
    methods = {
        model.model_fields["type"].annotation.__args__[0]: model for model in get_args(get_args(MethodSection)[0])
    }
    assert set(methods) <= set(told)
    for name, model in methods.items():
        if name != "distill":
            rows = model.model_construct(type=name).rows
            assert set(told[name]) == set(kinds.KINDS[rows].formats), name
    both = set(kinds.KINDS["answers"].formats) & set(kinds.KINDS["prompts"].formats)
    last = table("| `method.type` | formats that it reads |")[-1]
    assert set(names_in(last[1])) == both


def test_the_table_of_columns_is_that_of_the_formats() -> None:
    told: dict[str, str] = {}
    for first, columns in table("| format | columns |"):
        name = names_in(first)[0] if first else list(told)[-1]
        told[name] = f"{told.get(name, '')} {columns}"
    assert list(told) == list(formats.COLUMNS)
    for name, alternatives in formats.COLUMNS.items():
        read = [tuple(names_in(part)) for part in re.split(r"\bor\b|,", told[name]) if names_in(part)]
        assert read == list(alternatives), name


@pytest.mark.parametrize(
    "names",
    [
        list(turns.ROLES),
        [*turns.REASONING, turns.THOUGHT_END],
        [*formats.SYSTEM, *formats.GIVEN, *formats.ASIDE],
        list(fields.SAID),
        [*fields.REFUSED_IN_ROWS, *fields.REFUSED_IN_TURNS],
        list(formats.LABELS),
        list(prompts.TRUTH),
        list(prompts.TRLS_OWN),
        list(get_args(TemplateName)),
        list(READERS),
    ],
)
def test_every_name_that_ftlib_reads_is_on_the_page(names: list[str]) -> None:
    assert sorted(set(names) - NAMED) == []


def test_every_key_of_the_section_is_on_the_page() -> None:
    keys = set(DataSection.model_fields)
    assert {key for key in keys if not re.search(rf"data\.{key}\b", PAGE)} == set()


@pytest.mark.parametrize("kind", ["true", "false"])
def test_the_words_of_a_verdict_are_in_the_right_list(kind) -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("- good:" if kind == "true" else "- bad:"))
    assert set(names_in(line)) == {word for word, verdict in formats.LABELS.items() if verdict == (kind == "true")}


def test_lines_are_short() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > 120] == []


def test_the_defaults_on_the_page_are_the_sections() -> None:
    default: dict[str, Any] = {name: field.default for name, field in DataSection.model_fields.items()}
    for name in ("max_length", "eval_split", "split_seed", "hub_split"):
        assert re.search(rf"`data\.{name}`[^`]*\(default `?{default[name]}\b", FLOWING), name
