"""A turn in every way in which it is written, and what it says about training."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ftlib.data.fields import AGAINST, WEIGHTS, BadRow, Unweighted
from ftlib.data.formats import normalize, unused_fields
from ftlib.data.prompts import prompt_record
from ftlib.data.turns import read_tools, read_turn

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
BARE = {"name": "weather", "arguments": {"city": "Oslo"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def said(content: str = "", role: str = "assistant", **rest: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **rest}


GOOD = [
    ({"role": "model", "content": "a"}, said("a")),
    ({"from": "Human", "value": "q"}, said("q", "user")),
    ({"role": "developer", "content": "s"}, said("s", "system")),
    ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]},
     said("abc", "user")),
    ({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]},
     said("a", reasoning_content="hm")),
    ({"role": "assistant", "content": "a", "thinking": "hm"}, said("a", reasoning_content="hm")),
    ({"role": "assistant", "content": "a", "reasoning": "hm", "reasoning_content": "hm"},
     said("a", reasoning_content="hm")),
    ({"role": "assistant", "content": None, "tool_calls": [CALL | {"id": "1"}]}, said(tool_calls=[CALL | {"id": "1"}])),
    ({"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]},
     said(tool_calls=[CALL])),
    ({"role": "assistant", "content": "", "tool_calls": json.dumps([BARE])}, said(tool_calls=[CALL])),
    ({"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
     said(tool_calls=[CALL])),
    ({"from": "function_call", "value": json.dumps(BARE)}, said(tool_calls=[CALL])),
    ({"from": "function_call", "value": f"<think>\nhm\n</think>\n{json.dumps([BARE, BARE])}"},
     said("<think>\nhm\n</think>", tool_calls=[CALL, CALL])),
    ({"from": "observation", "value": "4 C"}, said("4 C", "tool")),
    ({"role": "function", "name": "weather", "content": "4 C"}, said("4 C", "tool", name="weather")),
    ({"role": "tool", "tool_call_id": "1", "content": ""}, said("", "tool", tool_call_id="1")),
    ({"role": "user", "content": "q", "name": "Ann", "images": [], "tool_calls": None},
     said("q", "user", name="Ann")),
]  # fmt: skip


@pytest.mark.parametrize(("turn", "read"), GOOD)
def test_a_turn_is_read(turn, read) -> None:
    assert read_turn(turn, "'messages[1]'") == read


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "part 1, is of type 'image_url'"),
        ({"role": "user", "content": "q", "images": ["x.png"]}, "has 'images', and text alone is trained on"),
        ({"role": "assistant", "content": "a", "train_detail": [{"begin_offset": 0}]}, "has 'train_detail', and parts"),
        ({"role": "assistant", "content": "a", "refusal": "no"}, "has 'refusal'"),
        ({"role": "assistant", "tool_plan": "look", "tool_calls": [CALL]}, "has 'tool_plan', and it stands beside"),
        ({"role": "system", "content": "a", "tools": [TOOL]}, "has 'tools', and they belong to the row"),
        ({"role": "assistant", "content": "a", "reasoning": "x", "thinking": "y"}, "'reasoning' and 'thinking', which"),
        ({"role": "user", "content": "q", "tool_calls": [CALL]}, "only the assistant calls tools"),
        ({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}, "call 1, names no function"),
        ({"role": "assistant", "tool_calls": [{"type": "custom", "custom": {}}]}, "call 1, must be a call"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}, "call 1, arguments is not valid JSON"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]}, "arguments must be an object"),
        ({"from": "function_call", "value": "weather in Oslo"}, "is not valid JSON"),
        ({"role": "assistant", "content": "a", "weight": 0.5}, "has 'weight': 0.5, and only 0 and 1 are known"),
        ({"role": "assistant", "content": "a", "weight": 0, "train": True}, "'weight' and 'train' contradict"),
        (
            {"role": "assistant", "content": "a", "token_weights": [1]},
            "has 'token_weights', which sounds like a weight",
        ),
        ({"role": "assistant", "content": "a", "mask": 1}, "has 'mask', and it does not say"),
    ],
)
def test_what_a_turn_wants_and_nobody_does_is_refused_by_name(turn, reason) -> None:
    with pytest.raises(BadRow) as caught:
        read_turn(turn, "'messages[1]'")
    assert str(caught.value).startswith("'messages[1]'") or "of 'messages[1]'" in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("key", WEIGHTS)
@pytest.mark.parametrize(("value", "weight"), [(0, 0), (False, 0), ("0", 0), (0.0, 0), (1, 1), (True, 1), ("true", 1)])
def test_every_spelling_of_a_weight(key, value, weight) -> None:
    assert read_turn(said("a") | {key: value}, "x")["weight"] == weight
    assert "weight" not in read_turn(said("a") | {key: None}, "x")


@pytest.mark.parametrize(
    "key",
    ["Weight", "TRAIN", "trainOnTurn", "isTrainable", "loss-weight", "Should Train", "trained", "Supervised",
     "sample_weight"],
)  # fmt: skip
def test_a_weight_is_known_in_any_case(key) -> None:
    assert read_turn(said("a") | {key: False}, "x")["weight"] == 0
    assert list(unused_fields("messages", {"messages": [said("q", "user"), said("a") | {key: 0}], key: 1})) == []
    with pytest.raises(BadRow, match=f"x has '{key}': 'maybe', and only 0 and 1 are known"):
        read_turn(said("a") | {key: "maybe"}, "x")


def test_spellings_the_other_way_round() -> None:
    assert [read_turn(said("a") | {key: True}, "x")["weight"] for key in AGAINST] == [0] * len(AGAINST)
    assert read_turn(said("a", noLoss=True), "x")["weight"] == 0
    assert read_turn(said("a", masked=False), "x")["weight"] == 1
    for key in ("skip", "ignored", "ignore", "exclude"):  # what is not left out need not be trained on: a user's turn
        assert "weight" not in read_turn(said("q", "user") | {key: False}, "x")


@pytest.mark.parametrize("key", ["train_on", "trainableTurn", "tokenWeights", "Mask", "untrained"])
def test_a_field_that_sounds_like_a_weight_is_refused_in_any_case(key) -> None:
    with pytest.raises(BadRow, match=f"x has '{key}', which sounds like a weight of the loss"):
        read_turn(said("a") | {key: 0}, "x")


TURNS = [said("q", "user"), said("BAD", weight=0), said("r", "user"), said("GOOD")]


def test_a_turn_of_weight_0_is_silent_and_a_row_of_weight_0_is_left_out() -> None:
    assert normalize("messages", {"messages": TURNS})["silent"] == [1]
    sharegpt = [{"from": "human", "value": "q", "train": False}, {"from": "gpt", "value": "a", "train": True}]
    assert normalize("sharegpt", {"conversations": sharegpt})["silent"] == [0]
    for row in (
        {"messages": [said("q", "user"), said("a", train=False)]},
        {"messages": TURNS, "weight": 0},
        {"messages": TURNS, "sample_weight": "0.0"},
        {"messages": TURNS, "train": False},
    ):
        with pytest.raises(Unweighted):
            normalize("messages", row)
    with pytest.raises(Unweighted):
        normalize("alpaca", {"instruction": "q", "output": "a", "loss_weight": 0})


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("messages", {"messages": TURNS, "weight": 2}, "the row has 'weight': 2"),
        ("messages", {"messages": TURNS, "Skip": 5}, "are known: trained on, or not (data.ignore_columns: [Skip]"),
        ("messages", {"messages": TURNS, "weights": [0, 1]}, "the row has 'weights', which sounds like a weight"),
        ("messages", {"messages": TURNS, "loss_mask": [0, 1]}, "the row has 'loss_mask': [0, 1], and only 0 and 1"),
        ("messages", {"messages": TURNS, "images": ["x"]}, "the row has 'images', and text alone"),
        ("messages", {"messages": TURNS, "chat_template": "x"}, "the row has 'chat_template'"),
        ("messages", {"messages": TURNS, "documents": [{"text": "x"}]}, "the row has 'documents', and no method here"),
        ("messages", {"messages": TURNS, "thinking": "hm"}, "the row has 'thinking', and a thought belongs to a turn"),
        ("prompt_completion", {"prompt": "q", "reasoning": "hm", "completion": "a"}, "the row has 'reasoning', and a"),
        (
            "alpaca",
            {"instruction": "q", "reasoning_content": "hm", "output": "a"},
            "the row has 'reasoning_content', and",
        ),
        ("messages", {"messages": [said("q", "user", train=True), said("a")]}, "turn 0 is a user turn that says that"),
        ("messages", {"messages": TURNS, "tools": "[{"}, "'tools' is not valid JSON"),
        ("messages", {"messages": TURNS, "tools": [{"description": "x"}]}, "'tools[0]' describes no function"),
        ("messages", {"messages": TURNS, "chat_template_kwargs": {"tokenize": True}}, "'chat_template_kwargs' must be"),
        ("messages", {"messages": [said("s", "system"), *TURNS], "system": "t"}, "'system' and another system text"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 0.5}, "the row has 'margin'"),
        ("preference", {"prompt": "q", "chosen": [said("a", weight=0)], "rejected": "b"}, "'chosen' says of turn 0"),
        ("preference", {"prompt": "q", "chosen": [said("a"), said("t", "tool")], "rejected": "b"}, "holds a tool turn"),
        ("preference", {"chosen": "a", "rejected": "b"}, "'prompt' is missing"),
        ("preference", {"chosen": [said("a")], "rejected": [said("b")]}, "must begin with the same prompt"),
        ("kto", {"messages": [said("q", "user"), said("a", weight=0)], "label": True}, "says of its last turn"),
    ],
)  # fmt: skip
def test_what_a_row_wants_and_nobody_does_is_refused_by_name(name, row, reason) -> None:
    with pytest.raises(BadRow) as caught:
        normalize(name, row)
    assert reason in str(caught.value)


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [TOOL["function"]], json.dumps(TOOL["function"])])
def test_tools_are_lists_or_json_wrapped_or_bare(tools) -> None:
    assert read_tools(tools, "tools") == [TOOL]
    for key in ("tools", "functions"):
        assert normalize("messages", {"messages": [said("q", "user"), said("a")], key: tools})["given"] == {
            "tools": [TOOL]
        }


@pytest.mark.parametrize("nothing", [None, [], "", "[]"])
def test_no_tools_are_no_tools(nothing) -> None:
    assert "given" not in normalize("messages", {"messages": [said("q", "user"), said("a")], "tools": nothing})


@pytest.mark.parametrize("key", ["system", "system_prompt"])
@pytest.mark.parametrize(
    ("name", "row", "field"),
    [
        ("messages", {"messages": [said("q", "user"), said("a")]}, "messages"),
        ("sharegpt", {"conversations": [said("q", "user"), said("a")]}, "messages"),
        ("alpaca", {"instruction": "q", "output": "a"}, "messages"),
        ("prompt_completion", {"prompt": "q", "completion": "a"}, "messages"),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}, "prompt"),
        ("preference", {"instruction": "q", "chosen": "a", "rejected": "b"}, "prompt"),
        (
            "preference",
            {"chosen": [said("q", "user"), said("a")], "rejected": [said("q", "user"), said("b")]},
            "prompt",
        ),
        ("kto", {"prompt": "q", "completion": "a", "label": True}, "prompt"),
        ("kto", {"messages": [said("q", "user"), said("a")], "label": True}, "prompt"),
        ("kto", {"conversations": [said("q", "user"), said("a")], "kto_tag": "true"}, "prompt"),
        ("prompt_only", {"prompt": "q"}, "prompt"),
    ],
)
def test_a_system_column_stands_first_in_every_format(name, row, field, key) -> None:
    assert normalize(name, {key: "Be brief.", **row})[field][0] == said("Be brief.", "system")
    if name != "kto":
        assert prompt_record(name, {key: "Be brief.", **row})["prompt"] == [
            said("Be brief.", "system"), said("q", "user")
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "row", "answer", "columns"),
    [
        ("messages", {"messages": [said("q", "user")], "ground_truth": "2"}, "2", {"ground_truth": "2"}),
        ("messages", {"messages": [said("q", "user"), said("a")]}, "a", {}),
        ("messages", {"messages": [said("q", "user"), said("a")], "solution": 7}, "7", {"solution": 7}),
        ("prompt_only", {"prompt": "q"}, "", {}),
        ("prompt_only", {"prompt": "q", "reward_model": {"ground_truth": "4", "style": "rule"}}, "4",
         {"reward_model": {"ground_truth": "4", "style": "rule"}}),
        ("prompt_completion", {"prompt": "q", "completion": "a", "level": 3}, "a", {"level": 3}),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b"}, "a", {}),
    ],
)  # fmt: skip
def test_prompts_have_the_answer_that_is_known_and_columns_for_rewards(name, row, answer, columns) -> None:
    record = prompt_record(name, row)
    assert (record["prompt"], record["answer"], record["columns"]) == ([said("q", "user")], answer, columns)


def test_fields_that_nobody_reads_are_named() -> None:
    row = {"messages": [said("q", "user", mood="bad", id=3), said("a")], "colour": "red", "source": "x", "system": "s",
           "weight": 1, "empty": None, "prompt": "q"}  # fmt: skip
    assert sorted(unused_fields("messages", row)) == ["colour", "messages[].mood", "prompt"]
    assert list(unused_fields("messages", row, all_read=True)) == ["messages[].mood"]
