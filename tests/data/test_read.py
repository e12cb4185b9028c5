"""Every kind of file, where its rows stand, and what is said about files that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.data.read import find_source, read_rows
from ftlib.errors import DataError

from .conftest import section

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": 'd, "e"\nf'}]


def rows_of(path, **settings: Any):
    data = section(path, **settings)
    return [(row.where, row.fields, row.problem) for row in read_rows(find_source("train", data), data)]


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("x.jsonl", ROWS, ["x.jsonl:1", "x.jsonl:2"]),
        ("x.jsonl",
         b'\xef\xbb\xbf{"prompt": "a", "completion": "b"}\n\n  \n{"prompt": "c", "completion": "d, \\"e\\"\\nf"}',
         ["x.jsonl:1", "x.jsonl:4"]),
        ("x.json", ROWS, ["x.json: item 1", "x.json: item 2"]),
        ("x.json", {"version": 2, "rows": ROWS}, ["x.json: item 1", "x.json: item 2"]),
        ("x.parquet", ROWS, ["x.parquet: row 1", "x.parquet: row 2"]),
        ("x.csv", 'prompt,completion\na,b\nc,"d, ""e""\nf"\n', ["x.csv:2", "x.csv:3"]),
    ],
)  # fmt: skip
def test_every_kind_of_file_gives_the_same_rows(write, name, content, places) -> None:
    assert rows_of(write(name, content)) == [(place, row, "") for place, row in zip(places, ROWS, strict=True)]


def test_a_tsv_without_a_header_has_positions_and_no_quoting(write) -> None:
    path = write("x.tsv", 'a "quote\t1\nplain\t0\n')
    assert rows_of(path, columns={"text": "0", "label": "1"}) == [
        ("x.tsv:1", {"text": 'a "quote', "label": "1"}, ""),
        ("x.tsv:2", {"text": "plain", "label": "0"}, ""),
    ]


def test_a_row_of_a_csv_is_known_by_its_first_line(write) -> None:
    path = write("x.csv", 'text\n"one\ntwo"\nthree\n\nfour,five\n')
    assert [(where, problem) for where, _, problem in rows_of(path)] == [
        ("x.csv:2", ""),
        ("x.csv:4", ""),
        ("x.csv:6", "it has 2 cells where the first line has 1"),
    ]


def test_a_document_in_a_csv_may_be_long(write) -> None:
    assert len(rows_of(write("x.csv", "text\n" + "a" * 300_000 + "\n"))[0][1]["text"]) == 300_000


def test_a_folder_is_read_whole_and_in_order(write, tmp_path) -> None:
    write("all/b.jsonl", [{"text": "3"}])
    write("all/a/z.json", [{"text": "1"}, {"text": "2"}])
    write("all/readme.md", "not data")
    places = [where for where, _, _ in rows_of(tmp_path / "all")]
    assert places == ["a/z.json: item 1", "a/z.json: item 2", "b.jsonl:1"]
    assert len(rows_of(tmp_path / "all", max_rows=2)) == 2


def test_columns_are_renamed_and_the_others_kept(write) -> None:
    path = write("x.jsonl", [{"question": "q", "answer": "a", "id": 7}])
    renamed = rows_of(path, columns={"prompt": "question", "completion": "answer"})
    assert renamed[0][1] == {"prompt": "q", "completion": "a", "id": 7}


def test_a_column_that_is_not_there_is_named_with_the_nearest(write) -> None:
    path = write("x.jsonl", [{"question": "q", "answer": "a"}])
    with pytest.raises(DataError, match=r"data.columns.prompt: 'qestion' is no column .* question, answer.*'question'"):
        rows_of(path, columns={"prompt": "qestion"})
    with pytest.raises(DataError, match=r"data.columns.label: '2' is no column"):
        rows_of(write("x.tsv", "a\t1\n"), columns={"text": "0", "label": "2"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": ', r"not valid JSON \(Expecting value at character"),
        ("[1]", "a row must be an object with named fields, but this is a list"),
        ("[" * 100_000, "not usable JSON"),
        ('{"n": ' + "1" * 5000 + "}", "not usable JSON"),
    ],
)
def test_a_bad_line_is_a_problem_of_its_row(write, line, reason) -> None:
    (_, _, problem), (_, fields, none) = rows_of(write("x.jsonl", line + '\n{"text": "fine"}\n'))
    assert problem.startswith(reason.partition("\\")[0])
    assert (fields, none) == ({"text": "fine"}, "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "is empty"),
        ("x.jsonl", b"\n\n", "holds no rows"),
        ("x.csv", b"text,label\n", "holds no rows"),
        ("x.jsonl", '{"text": "é"}'.encode("utf-16-le"), "not UTF-8"),
        ("x.jsonl", b"\xff\xfe{\x00\x00", "not UTF-16"),
        ("x.csv", "text\ncafé\n".encode("latin-1"), "not UTF-8"),
        ("x.csv", b'text\n"never closed\n', "x.csv:2: not valid CSV"),
        ("x.json", b'{"text": "a"}\n{"text": "b"}', "name it .jsonl"),
        ("x.json", b'{"text": "a"}', "must hold a list of rows, but this is a dict"),
        ("x.json", b'"text"', "must hold a list of rows, but this is a str"),
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.parquet", b"PAR1 no", "not a readable Parquet file"),
        ("x.txt", b"text", r"does not end in .jsonl, .json, .csv, .tsv or .parquet"),
        ("x/readme.md", b"text", "holds no .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(write, tmp_path, name, content, message) -> None:
    path = write(name, content)
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path / "x" if name == "x/readme.md" else path)


def test_a_missing_file_has_the_nearest_name(write, tmp_path) -> None:
    write("train.jsonl", ROWS)
    with pytest.raises(DataError, match=r"data.train: no such file.*trian.jsonl'. Did you mean 'train.jsonl'\?"):
        rows_of(tmp_path / "trian.jsonl")


def test_a_name_on_the_hub_that_cannot_be_had(monkeypatch) -> None:
    import datasets

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'some/data' on the Hub\nand a page of advice")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"'some/data' is neither a file nor a folder, .* Couldn't reach") as caught:
        rows_of("some/data")
    assert "advice" not in str(caught.value)


def test_a_data_set_on_the_hub(monkeypatch) -> None:
    import datasets

    table = datasets.Dataset.from_list(ROWS)
    asked = {}

    def load_dataset(name: str, config: str | None, *, split: str) -> Any:
        asked.update(name=name, config=config, split=split)
        return table

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert rows_of("org/qa", hub_config="main", hub_split="test")[1] == ("org/qa: row 2", ROWS[1], "")
    assert asked == {"name": "org/qa", "config": "main", "split": "test"}
    assert find_source("train", section("org/qa")).digest() == find_source("train", section("org/qa")).digest()


def test_a_tsv_is_read_as_pandas_and_excel_write_it(write) -> None:
    import io

    import pandas

    rows = [{"text": 'He said "hi"', "label": "a"}, {"text": "two\nlines\tand a tab", "label": "b"}]
    for name, separator in (("x.tsv", "\t"), ("x.csv", ",")):
        text = io.StringIO()
        pandas.DataFrame(rows).to_csv(text, sep=separator, index=False)
        assert [fields for _, fields, _ in rows_of(write(name, text.getvalue()))] == rows
    assert rows_of(write("y.tsv", 'prompt\tcompletion\nq1\t"He said ""hi"""\n'))[0][1]["completion"] == 'He said "hi"'


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_file_with_the_mark_of_its_encoding_is_read(write, name, encoding) -> None:
    separator = "\t" if name == "x.tsv" else ","
    text = {"x.jsonl": '{"text": "é", "label": "1"}\n', "x.json": '[{"text": "é", "label": "1"}]'}.get(
        name, f'text{separator}label\n"é"{separator}1\n'
    )
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    assert rows_of(write(name, mark + text.encode(encoding)))[0][1] == {"text": "é", "label": "1"}


def test_a_csv_may_have_semicolons(write) -> None:
    path = write("x.csv", 'prompt;completion\nq, 1;"He said ""hi""; then, bye"\n')
    assert rows_of(path)[0][1] == {"prompt": "q, 1", "completion": 'He said "hi"; then, bye'}
    assert rows_of(write("y.csv", "text,a;b\nx;y,z\n"))[0][1] == {"text": "x;y", "a;b": "z"}
    assert rows_of(write("z.csv", '"a, b";c\nx;y\n'))[0][1] == {"a, b": "x", "c": "y"}
    assert rows_of(write("w.csv", "text\nx;y\n"))[0][1] == {"text": "x;y"}
    assert rows_of(write("v.csv", "x;y\nz;w\n"), columns={"text": "0"})[0][1] == {"text": "x;y"}  # no header


def test_a_bare_quote_within_a_cell_says_that_no_program_quoted_the_tsv(write) -> None:
    texts = ['"quoted"', 'a "b" c', "x", "y"]
    path = write("x.tsv", "text\tlabel\n" + "".join(f"{text}\t{number}\n" for number, text in enumerate(texts)))
    assert [fields["text"] for _, fields, _ in rows_of(path)] == texts
    path = write("y.tsv", 'text\tlabel\n"quoted"\t0\n"a ""b"" c"\t1\n"two\nlines\tand"\t2\nx\t3')
    assert [fields["text"] for _, fields, _ in rows_of(path)] == ["quoted", 'a "b" c', "two\nlines\tand", "x"]


def test_quotes_of_a_text_stay_where_a_tsv_has_no_others(write) -> None:
    texts = ['"quoted" and more', '"', 'ends with one"', 'a "b" c']
    path = write("x.tsv", "text\tlabel\n" + "".join(f"{text}\t{number}\n" for number, text in enumerate(texts)))
    assert [fields["text"] for _, fields, _ in rows_of(path)] == texts


def test_columns_that_are_to_be_ignored_are_not_there(write) -> None:
    path = write("x.jsonl", [{"text": "t", "weight": 3.2}])
    assert rows_of(path, ignore_columns=["weight"])[0][1] == {"text": "t"}
    with pytest.raises(DataError, match=r"data.ignore_columns: 'wieght' is no column .* Did you mean 'weight'"):
        rows_of(path, ignore_columns=["wieght"])


def test_the_nulls_with_which_arrow_fills_mappings_are_no_values(write) -> None:
    call = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g", "arguments": {"b": 2}}}]
    rows = [{"messages": [{"role": "assistant", "tool_calls": call}], "note": None}]
    assert [fields for _, fields, _ in rows_of(write("x.parquet", rows))] == rows
