"""Turns in the cell of a table: read as JSON, refused as Python prints them, and no other text is taken for turns."""

from __future__ import annotations

import io
import json

import pytest

from ftlib.data import prepare
from ftlib.data.cells import turns_in
from ftlib.data.fields import BadRow
from ftlib.data.formats import normalize
from ftlib.errors import DataError

from .conftest import section, trained_texts

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "turns",
    [[USER], [{"weight": 0, **USER}], [{"id": "1", "from": "human", "value": "q"}], USER, {"name": "Ann", **USER},
     [{"tool_calls": [], "role": "assistant"}, USER]],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, 2])
def test_turns_are_read_whatever_their_first_key_is(turns, indent) -> None:
    assert turns_in(json.dumps(turns, indent=indent), "x") == turns


@pytest.mark.parametrize(
    "text",
    ["q", "[1, 2]", "[]", "{}", '[{"name": "Ann", "age": 7}]', '[{"city": "Oslo", "role": "capital"}]',
     '{"person": "Ann", "role": "manager", "content": "x"}', "{'a': 1}", "[{'role': 'x'}]",
     "[{'role': 'user', 'content': 'q'}]: what is this?", '{"weight": 0, "role": "user", "content": "q"} is a turn'],
)  # fmt: skip
def test_other_texts_are_texts(text) -> None:
    assert turns_in(text, "x") is None
    assert normalize("prompt_completion", {"prompt": text, "completion": text})["messages"] == [
        {"role": "user", "content": text},
        {"role": "assistant", "content": text},
    ]


@pytest.mark.parametrize("text", [str([USER]), str([{"weight": 0, **USER}]), str(USER)])
@pytest.mark.parametrize("key", ["prompt", "completion"])
def test_turns_as_python_prints_them_are_refused(key, text) -> None:
    with pytest.raises(BadRow, match=f"'{key}' holds turns as Python prints them, not as JSON: write the cell with"):
        normalize("prompt_completion", {"prompt": "q", "completion": "a", key: text})
    with pytest.raises(BadRow, match="as Python prints them"):
        normalize("messages", {"messages": text})


def test_a_table_that_pandas_writes(write, tokenizer) -> None:
    import numpy
    import pandas

    def table(*cells: object) -> str:
        text = io.StringIO()
        pandas.DataFrame({"prompt": cells, "completion": ["a"] * len(cells)}).to_csv(text, index=False)
        return text.getvalue()

    turns = [{"weight": 0, **USER}, ASSISTANT, {"id": 3, **USER}]
    path = write("x.csv", table(*[json.dumps(turns)] * 3))
    assert trained_texts(prepare(section(path), "answers", tokenizer).train, tokenizer) == ["a<|im_end|></s>\n"] * 2
    for cell in (turns, numpy.array(turns, dtype=object)):
        with pytest.raises(DataError, match=r"y.csv:2: 'prompt' holds turns as Python prints them"):
            prepare(section(write("y.csv", table(cell, cell))), "answers", tokenizer)
