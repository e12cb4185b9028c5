"""Every format becomes one canonical record, and every bad row says why it is one."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.data.formats import BadRow, detect, normalize
from ftlib.errors import DataError


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def human(value: str) -> dict[str, str]:
    return {"from": "human", "value": value}


def gpt(value: str) -> dict[str, str]:
    return {"from": "gpt", "value": value}


def messages(*turns: dict[str, str], trained_from: int = 0) -> dict[str, Any]:
    return {"messages": list(turns), "trained_from": trained_from}


GOOD = [
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}, messages(user("q"), assistant("a"))),
    ("alpaca", {"instruction": "q", "input": "x", "output": "a", "system": "s", "history": [["h", "i"]]},
     messages(system("s"), user("h"), assistant("i"), user("q\nx"), assistant("a"))),
    ("stanford", {"instruction": "q", "input": "x", "output": "a"},
     messages(user("q\n\n### Input:\nx"), assistant("a"))),
    ("stanford", {"instruction": "q", "input": "", "output": "a"}, messages(user("q"), assistant("a"))),
    ("alpaca", {"instruction": "q", "input": None, "output": " a\n", "system": None, "history": None},
     messages(user("q"), assistant(" a\n"))),
    ("messages", {"messages": [system("s"), user("q"), assistant("a")], "id": 7},
     messages(system("s"), user("q"), assistant("a"))),
    ("messages", {"messages": [system(""), user("q"), assistant("a")]}, messages(user("q"), assistant("a"))),
    ("sharegpt", {"conversations": [human("q"), gpt("a"), human("r"), gpt("b")], "system": "s"},
     messages(system("s"), user("q"), assistant("a"), user("r"), assistant("b"))),
    ("prompt_completion", {"prompt": "q", "completion": "a"}, messages(user("q"), assistant("a"), trained_from=1)),
    ("prompt_completion", {"prompt": [user("q"), assistant("a"), user("r")], "completion": [assistant("b")]},
     messages(user("q"), assistant("a"), user("r"), assistant("b"), trained_from=3)),
    ("text", {"text": "t", "id": 3}, {"text": "t"}),
    ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"},
     {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]}),
    ("preference", {"prompt": "q", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
     {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]}),
    ("preference", {"conversations": [human("q")], "chosen": gpt("a"), "rejected": gpt("b")},
     {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]}),
    ("kto", {"prompt": "q", "completion": "a", "label": True},
     {"prompt": [user("q")], "completion": [assistant("a")], "label": True}),
    ("kto", {"messages": [user("q"), assistant("a")], "label": "False"},
     {"prompt": [user("q")], "completion": [assistant("a")], "label": False}),
    ("kto", {"prompt": "q", "completion": "a", "label": 0},
     {"prompt": [user("q")], "completion": [assistant("a")], "label": False}),
    ("classification", {"text": "t", "label": "pos "}, {"text": "t", "label": "pos"}),
    ("classification", {"text": "t", "label": 1.0}, {"text": "t", "label": 1}),
    ("text", {"text": "t", "system": " ", "tools": [], "functions": "[]", "chat_template_kwargs": {}}, {"text": "t"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "record"), GOOD)
def test_a_row_is_detected_and_normalized(name, fields, record) -> None:
    assert detect("auto", fields, "x") == {"stanford": "alpaca"}.get(name, name)  # which has the columns of alpaca
    assert detect(name, fields, "x") == name
    assert normalize(name, fields) == record


BAD = [
    ("alpaca", {"instruction": "q", "output": ""}, "'output' is empty"),
    ("alpaca", {"instruction": "q", "output": " \n"}, "'output' is empty"),
    ("alpaca", {"instruction": "q"}, "'output' is missing"),
    ("alpaca", {"instruction": None, "output": "a"}, "'instruction' is missing"),
    ("alpaca", {"instruction": "q", "output": 7}, "'output' must be text, but is a int"),
    ("alpaca", {"instruction": "q", "output": "a", "history": ["h"]}, "'history' must be a list of"),
    ("alpaca", {"instruction": "q", "output": "\ud800"}, "'output' is not valid Unicode"),
    ("messages", {"messages": []}, "'messages' is empty"),
    ("messages", {"messages": "q"}, "'messages' must be a list of turns, but is a str"),
    ("messages", {"messages": ["q"]}, "'messages[0]' must be a turn"),
    ("messages", {"messages": [user("q"), {"role": "robot", "content": "a"}]}, "'messages[1]' has the role 'robot'"),
    ("messages", {"messages": [user("q"), {"role": ["x"], "content": "a"}]}, "'messages[1]' has the role ['x']"),
    ("messages", {"messages": [user("q"), {"role": "assistant", "content": None}]}, "'messages[1]' has no content"),
    ("messages", {"messages": [user("q"), assistant(" ")]}, "'messages[1]' is empty"),
    ("messages", {"messages": [user("q")]}, "it has no assistant turn"),
    ("messages", {"messages": [system("s"), assistant("a")]}, "its first turn is the assistant's"),
    ("sharegpt", {"conversations": [gpt("a"), human("q")]}, "its first turn is the assistant's"),
    ("prompt_completion", {"prompt": "q", "completion": "  "}, "'completion' is empty"),
    ("prompt_completion", {"prompt": [user("q"), assistant("a")], "completion": "b"}, "'prompt' must end with a user"),
    ("prompt_completion", {"prompt": "q", "completion": [user("r")]}, "'completion' must begin with an assistant"),
    ("text", {"text": ""}, "'text' is empty"),
    ("preference", {"prompt": "q", "chosen": "a", "rejected": None}, "'rejected' is missing"),
    ("kto", {"prompt": "q", "completion": "a", "label": "maybe"}, "'label' must be true or false, but is 'maybe'"),
    ("kto", {"messages": [user("q"), assistant("a"), user("r")], "label": 1}, "'messages' must end with the assistant"),
    ("classification", {"text": "t", "label": None}, "'label' is missing"),
    ("classification", {"text": "t", "label": 0.5}, "'label' must be text, but is a float"),
]


@pytest.mark.parametrize(("name", "fields", "reason"), BAD)
def test_a_bad_row_says_why(name, fields, reason) -> None:
    with pytest.raises(BadRow) as caught:
        normalize(name, fields)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("row", [{"text": "t"}, {"text": "t", "label": "a"}])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("system", "Be brief."),
        ("system_prompt", "Be brief."),
        ("tools", [{"name": "f"}]),
        ("functions", '[{"name": "f"}]'),
        ("chat_template_kwargs", {"enable_thinking": False}),
    ],
)
def test_what_only_a_chat_template_writes_is_refused_beside_a_text(row, key, value) -> None:
    reason = rf"the row has '{key}', and no chat template writes it beside 'text'.*ignore_columns: \[{key}\]"
    with pytest.raises(BadRow, match=reason):
        normalize("classification" if "label" in row else "text", {**row, key: value})


TURNS = [user("q"), assistant("a")]


@pytest.mark.parametrize(("key", "value"), [("input", "hello"), ("history", [["h", "i"]])])
@pytest.mark.parametrize(
    ("name", "row", "first"),
    [
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}, "prompt"),
        ("preference", {"conversations": [human("q")], "chosen": gpt("a"), "rejected": gpt("b")}, "conversations"),
        ("preference", {"chosen": TURNS, "rejected": [user("q"), assistant("b")]}, "chosen"),
        ("kto", {"prompt": "q", "completion": "a", "label": True}, "prompt"),
        ("kto", {"messages": TURNS, "label": True}, "messages"),
        ("prompt_completion", {"prompt": "q", "completion": "a"}, "prompt"),
        ("messages", {"messages": TURNS}, "messages"),
        ("sharegpt", {"conversations": TURNS}, "conversations"),
    ],
)
def test_a_part_of_the_conversation_that_is_not_read_is_refused_by_name(name, row, first, key, value) -> None:
    with pytest.raises(
        BadRow, match=f"the row has '{key}', which is read beside 'instruction' and not beside '{first}'"
    ):
        normalize(name, {**row, key: value})
    assert normalize(name, {**row, key: None}) == normalize(name, row)


@pytest.mark.parametrize("row", [{"chosen": "a", "rejected": "b"}, {"output": "a", "kto_tag": "true"}])
def test_input_and_history_are_read_beside_an_instruction(row) -> None:
    record = normalize(
        "kto" if "kto_tag" in row else "preference",
        {"instruction": "q", "input": "x", "history": [["h", "i"]], **row},
    )
    assert record["prompt"] == [user("h"), assistant("i"), user("q\nx")]


def test_the_most_telling_columns_win() -> None:
    assert detect("auto", ["instruction", "output", "text"], "x") == "alpaca"
    assert detect("auto", ["prompt", "chosen", "rejected", "messages"], "x") == "preference"
    assert detect("messages", ["prompt", "chosen", "rejected", "messages"], "x") == "messages"


def test_columns_that_fit_nothing_are_listed_with_what_is_needed() -> None:
    with pytest.raises(DataError, match=r"x: its columns \(question, answer\) fit no format.*prompt \+ completion"):
        detect("auto", ["question", "answer"], "x")
    with pytest.raises(DataError, match=r"do not fit data.format: alpaca. Columns needed: alpaca: instruction \+ outp"):
        detect("alpaca", ["text"], "x")
