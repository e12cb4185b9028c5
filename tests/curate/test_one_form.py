"""Rows of several forms become chats, and what carries no loss still carries none."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.curate.one_form import are_mixed, as_chat
from ftlib.data.formats import detect, normalize

KNOWN = {"_id": "0" * 16, "_from": "t.jsonl:1"}
USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
ROWS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "a", "completion": "b", "kind": "x", "id": 7},
    "an answer within the prompt": {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]},
    "alpaca": {"instruction": "a", "input": "c", "output": "b", "system": "s", "history": [["d", "e"]]},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": TOOLS},
}


@pytest.mark.parametrize("fields", ROWS.values(), ids=ROWS)
def test_a_chat_is_trained_on_as_its_row_was(fields: dict[str, Any]) -> None:
    form = detect("auto", fields, "")
    chat = as_chat({**KNOWN, **fields})
    assert {name: value for name, value in chat.items() if name in (*KNOWN, "kind", "id")} == {
        **KNOWN, **{name: fields[name] for name in fields if name in ("kind", "id")}
    }  # fmt: skip
    assert detect("auto", chat, "") == "messages"
    ours, theirs = normalize("messages", chat), normalize(form, fields)
    assert (ours["messages"], ours.get("given")) == (theirs["messages"], theirs.get("given"))
    assert _trained(ours) == _trained(theirs)


def _trained(record: dict[str, Any]) -> list[int]:
    answers = [index for index, turn in enumerate(record["messages"]) if turn["role"] == "assistant"]
    return [index for index in answers if index >= record["trained_from"] and index not in record.get("silent", ())]


def test_only_forms_of_a_conversation_are_mixed() -> None:
    chat, pair = {**KNOWN, "messages": [USER, ANSWER]}, {**KNOWN, "prompt": "a", "completion": "b"}
    assert are_mixed([chat, pair])
    assert not are_mixed([chat, chat])
    assert not are_mixed([pair, {**KNOWN, "text": "a"}])
    for same in (chat, {**KNOWN, "text": "a"}, {**KNOWN, "prompt": 3, "completion": "b"},
                 {**KNOWN, "instruction": "a", "output": "b", "label": "x"}):  # fmt: skip
        assert as_chat(same) == same  # a damaged row is told of where it is trained on
