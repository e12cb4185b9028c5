"""Bodies: each field is obeyed, harmless or refused by its name, and no body costs more than its bytes."""

from __future__ import annotations

import gc
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from serve.engine.messages import Refused
from serve.front.body import parse
from serve.front.openai import HARMLESS, NOT_YET, ChatRequest, ClassifyRequest, CompletionRequest, Request

from .conftest import KEY, World

HEADERS = {"authorization": f"Bearer {KEY}"}
TURN = [{"role": "user", "content": "hi"}]
MANY = 240_000  # about a megabyte of anything


def read(body: dict[str, Any] | bytes) -> Request:
    if isinstance(body, dict):
        shape = ChatRequest if "messages" in body else ClassifyRequest if "input" in body else CompletionRequest
        return parse(shape, json.dumps({"model": "support", **body}).encode())
    return parse(ChatRequest, body)


def fault(body: dict[str, Any] | bytes) -> Any:
    with pytest.raises(Refused) as caught:
        read(body)
    assert caught.value.refusal.status == 400
    assert len(caught.value.refusal.message) < 400
    return caught.value.refusal


# As in ../shared/cases/requests.json, and others of the kinds: (the body, the field that is named).
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "a penalty": ({"prompt": "hi", "repetition_penalty": 5}, "repetition_penalty"),
    "a choice of answers": ({"prompt": "hi", "guided_choice": ["a", "b"]}, "guided_choice"),
    "a message to go on with": (
        {"messages": [*TURN, {"role": "assistant", "content": "I am"}], "continue_final_message": True},
        "continue_final_message",
    ),
    "more answers than rows": ({"prompt": ["hi"] * 2048, "n": 16, "max_tokens": 1}, "n"),
    "more prompts than any": ({"prompt": ["hi"] * 5000, "n": 16, "max_tokens": 1}, "prompt"),
    "prompts that are none": ({"prompt": [{}] * 50_000}, "prompt"),
    "an answer's schema": ({"messages": TURN, "response_format": {"type": "json_object"}}, "response_format"),
    "the best of": ({"prompt": "hi", "best_of": 3}, "best_of"),
    "an echo": ({"prompt": "hi", "echo": True}, "echo"),
    "a stop that is empty": ({"prompt": "hi", "stop": ["x", ""]}, "stop"),
    "a suffix": ({"prompt": "hi", "suffix": "x"}, "suffix"),
    "functions": ({"messages": TURN, "functions": [{"name": "f"}]}, "functions"),
    "a choice of tools": ({"messages": TURN, "tool_choice": "required"}, "tool_choice"),
    "a typo": ({"prompt": "hi", "temprature": 0}, "temprature"),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
        "messages.0.content.0.type",
    ),
    "tools that the template drops": (
        {"messages": TURN, "tools": [{"type": "function", "function": {"name": "weather"}}]},
        "tools",
    ),
    "calls that the template drops": (
        {
            "messages": [
                *TURN,
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
            ]
        },
        "messages.1.tool_calls",
    ),
    "a bias outside": ({"prompt": "hi", "logit_bias": {"99999": 1}}, "logit_bias"),
    "an id outside": ({"prompt": [5, 320]}, "prompt"),
    "an id below": ({"prompt": [[5], [-1]]}, "prompt"),
}


@pytest.mark.parametrize(("body", "param"), CASES.values(), ids=CASES)
def test_a_case_is_refused_by_name_and_at_once(world: World, body: dict[str, Any], param: str) -> None:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    answer = httpx.post(world.url + path, json={"model": "support", **body}, headers=HEADERS, timeout=20)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert len(answer.text) < 600


@pytest.mark.parametrize("name", NOT_YET)
def test_what_is_not_there_yet_may_be_asked_for_nothing(name: str) -> None:
    assert fault({"messages": TURN, name: {"x": 1}}).param == name
    for nothing in (None, *NOT_YET[name]):
        read({"messages": TURN, name: nothing})
        read({"prompt": "hi", name: nothing})


def test_what_changes_nothing_is_taken() -> None:
    read({"messages": TURN, **{name: {"any": ["thing"]} for name in HARMLESS}})
    read({"input": "x", "user": "me"})
    read({"messages": [{**TURN[0], "refusal": None, "annotations": [], "audio": None}]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": "x", "temprature": 0}, "temprature: There is no such field here. Did you mean 'temperature'?"),
        ({"prompt": "x", "max_token": 0}, "Did you mean 'max_tokens'?"),
        ({"messages": [{"role": "user", "contents": "x"}]}, "messages.0.contents: .*'content'?"),
        ({"messages": TURN, "stream_options": {"usage": True}}, "stream_options.usage: "),
        ({"messages": TURN, "top_logprobs": 2}, "top_logprobs: It needs 'logprobs': true"),
        ({"messages": TURN, "max_tokens": 2, "max_completion_tokens": 3}, "give one of them"),
        ({"prompt": [1, "a"]}, "prompt.1: "),
        ({"prompt": ["a", [1]]}, "prompt.1: "),
        ({"prompt": [1, True]}, "prompt.1"),
        ({"prompt": [True, True]}, "prompt.0"),
        ({"messages": TURN, "tools": [{"type": "function"}]}, "tools: Tool 0 cannot be used: function"),
        ({"messages": TURN, "tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, "strict"),
        (b'{"model": "a", "x\\u001b[2J": 1}', "x\N{REPLACEMENT CHARACTER}\\[2J: "),
        (b'{"model": "a", "messages": NaN}', "it is no JSON"),
        (b"[1]", "give a JSON object"),
    ],
)
def test_a_fault_is_told_in_a_sentence(body: Any, message: str) -> None:
    assert re.search(message, fault(body).message)


LARGE: dict[str, Any] = {
    "objects": {"prompt": [{}] * MANY},
    "lists": {"prompt": [[]] * MANY},
    "texts": {"prompt": ["x"] * 200_000},
    "messages": {"messages": [{}] * MANY},
    "keys of a message": {"messages": [{str(number): 1 for number in range(80_000)}]},
    "keys": {"messages": TURN, **{str(number): 1 for number in range(80_000)}},
    "tools": {"messages": TURN, "tools": [{}] * MANY},
    "calls": {"messages": [{"role": "assistant", "tool_calls": [{}] * MANY}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 30_000}]},
    "stops": {"messages": TURN, "stop": [{}] * MANY},
    "biases": {"messages": TURN, "logit_bias": {str(number): "a" for number in range(80_000)}},
    "texts to sort": {"input": [{}] * MANY},
    "depth": b'{"messages":' + b"[" * 900_000,
    "digits": b'{"seed":' + b"9" * 900_000 + b"}",
    "a long name": b'{"' + b"x" * 900_000 + b'": 1}',
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
def test_one_error_of_a_megabyte_costs_no_more_than_to_read_it(body: Any) -> None:
    """To make an error for each of 240,000 values costs fifty times as much as to read them."""
    body = body if isinstance(body, bytes) else json.dumps({"model": "support", **body}).encode()
    shapes = (ClassifyRequest,) if b'"input"' in body[:60] else (ChatRequest, CompletionRequest)
    values = json.dumps([{}] * MANY).encode()
    for shape in shapes:
        with pytest.raises(Refused) as caught:
            parse(shape, body)
        assert len(str(caught.value.refusal)) < 1000
        assert cost(lambda shape=shape: parse(shape, body)) < 10 * cost(lambda: json.loads(values))


def cost(call: Callable[[], Any]) -> float:
    """Seconds of this thread, the least of three times. Without the collection of what else the tests have made."""
    gc.disable()
    try:
        return min(_once(call) for _ in range(3))
    finally:
        gc.enable()


def _once(call: Callable[[], Any]) -> float:
    began = time.thread_time()
    with suppress(Refused):
        call()
    return time.thread_time() - began


def test_a_chat_is_what_templates_take() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "ß"}'}}
    asked = read(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "5", "tool_call_id": "1"},
            ]
        }
    )
    assert isinstance(asked, ChatRequest)
    assert [message.plain() for message in asked.messages] == [
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{**call, "function": {"name": "f", "arguments": {"a": "ß"}}}],
        },
        {"role": "tool", "content": "5", "tool_call_id": "1"},
    ]
    wrong = {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "no"}}]}]}
    assert fault(wrong).param == "messages.0.tool_calls.0.function.arguments"


def in_parts(count: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": ""}] * count}]


def biases(count: int) -> dict[str, int]:
    return {str(token): 1 for token in range(count)}


TOOL = {"type": "function", "function": {"name": "f"}}
MOST: dict[str, tuple[int, Any, str]] = {  # how many may be there, the body with so many, and the field
    "prompts": (2048, lambda count: {"prompt": ["x"] * count}, "prompt"),
    "messages": (2048, lambda count: {"messages": TURN * count}, "messages"),
    "parts": (256, lambda count: {"messages": in_parts(count)}, "messages.0.content"),
    "tools": (128, lambda count: {"messages": TURN, "tools": [TOOL] * count}, "tools"),
    "stop strings": (16, lambda count: {"messages": TURN, "stop": ["x"] * count}, "stop"),
    "biases": (1024, lambda count: {"prompt": "x", "logit_bias": biases(count)}, "logit_bias"),
    "answers": (16, lambda count: {"prompt": "x", "n": count}, "n"),
}


@pytest.mark.parametrize(("most", "body", "param"), MOST.values(), ids=MOST)
def test_so_many_and_no_more(most: int, body: Any, param: str) -> None:
    read(body(most))
    assert fault(body(most + 1)).param == param


def test_json_is_200_deep_at_most() -> None:
    def body(depth: int) -> bytes:
        return b'{"model": "support", "prompt": "x", "metadata": ' + b"[" * depth + b"]" * depth + b"}"

    parse(CompletionRequest, body(190))
    with pytest.raises(Refused, match="it is no JSON"):
        parse(CompletionRequest, body(210))
