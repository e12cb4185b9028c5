"""A turn of a conversation, from any of the ways in which it is written to the one that chat templates take.

    {"role": "system" | "user" | "assistant" | "tool", "content": str}     and, where there is something to say,
    "reasoning_content": str   what the assistant thought before it spoke
    "tool_calls": [{"type": "function", "function": {"name": str, "arguments": {...}}, "id": str}]
    "name": str                who speaks; of a tool's turn, with "tool_call_id": str, whose result it is
    "weight": 0 | 1            whether the turn is trained on; `formats` takes it out

Read are OpenAI's and TRL's messages, ShareGPT's `from` and `value`, and the tool roles of LLaMA-Factory.
"""

from __future__ import annotations

from typing import Any

from ftlib.data.fields import (
    REFUSED_IN_TURNS,
    BadRow,
    from_json,
    refuse,
    refuse_unknown_weights,
    weight_of,
)

Turn = dict[str, Any]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "developer": "system",  # OpenAI's newer name
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "function_call": "assistant",  # its content is a call
    "tool_call": "assistant",
}
CALLING = ("function_call", "tool_call")
REASONING = ("reasoning_content", "reasoning", "thinking")
THOUGHT_END = "</think>"
READ = frozenset(
    ("role", "from", "content", "value", "name", "tool_call_id", "tool_calls", "function_call", *REASONING)
) | {*REFUSED_IN_TURNS}


def without_system(record: dict[str, Any]) -> dict[str, Any]:
    """A record without the system turn at the start of its conversation."""
    key = "messages" if "messages" in record else "prompt"
    turns = record.get(key)
    if not isinstance(turns, list) or not turns or turns[0]["role"] != "system":
        return record
    counted = {"trained_from": max(0, record["trained_from"] - 1)} if "trained_from" in record else {}
    silent = {"silent": [index - 1 for index in record["silent"] if index]} if "silent" in record else {}
    return record | {key: turns[1:], **counted, **silent}


def read_turn(turn: Any, name: str) -> Turn:
    """The turn in canonical form. `name` is what a message calls it. Raises BadRow."""
    if not isinstance(turn, dict):
        raise BadRow(f"{name} must be a turn with a role and content, but is a {type(turn).__name__}")
    turn = {key: value for key, value in turn.items() if value is not None}
    said = turn.get("role", turn.get("from"))
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        raise BadRow(f"{name} has the role {said!r}; known are {', '.join(ROLES)}")
    refuse(turn, REFUSED_IN_TURNS, name)
    refuse_unknown_weights(turn, name)
    content, thought = _content(turn, name)
    calls = _calls(turn, name)
    if str(said).strip().lower() in CALLING:
        content, written = _before_the_call(content)
        calls += read_calls(written, name)
    thought = thought or _reasoning(turn, name)
    if calls and role != "assistant":
        raise BadRow(f"{name} is a {role} turn with 'tool_calls': only the assistant calls tools")
    may_be_blank = role in ("system", "tool") or calls or thought
    read: Turn = {"role": role, "content": checked(content, name, blank=bool(may_be_blank))}
    if thought:
        read["reasoning_content"] = checked(thought, f"{name}, reasoning_content,")
    if calls:
        read["tool_calls"] = calls
    named = ("name", "tool_call_id") if role == "tool" else ("name",)
    read |= {key: str(turn[key]) for key in named if turn.get(key)}
    weight = weight_of(turn, name)
    return read if weight is None else read | {"weight": weight}


def read_calls(value: Any, name: str) -> list[dict[str, Any]]:
    """Calls of tools, from OpenAI's list, from one call, or from the JSON of either. Raises BadRow."""
    value = from_json(value, f"the call of {name}")
    calls = value if isinstance(value, list) else [value]
    return [_call(call, f"{name}, call {index + 1},") for index, call in enumerate(calls)]


def read_tools(value: Any, name: str) -> list[dict[str, Any]]:
    """Descriptions of tools as templates take them, from a list or its JSON, each wrapped or bare. Raises BadRow."""
    value = from_json(value, f"'{name}'")
    tools = value if isinstance(value, list) else [value]
    return [_tool(from_json(tool, f"'{name}[{index}]'"), f"'{name}[{index}]'") for index, tool in enumerate(tools)]


def checked(value: Any, name: str, *, blank: bool = False) -> str:
    """A text that a tokenizer takes; blank ones are refused, or become the empty string. Raises BadRow."""
    if not isinstance(value, str):
        raise BadRow(f"{name} must be text, but is a {type(value).__name__}")
    if not value.strip():
        if blank:
            return ""
        raise BadRow(f"{name} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair; no tokenizer takes it
        raise BadRow(f"{name} is not valid Unicode (character {error.start} is half of a surrogate pair)") from None
    return value


def _before_the_call(content: Any) -> tuple[str, Any]:
    """What LLaMA-Factory's `function_call` turn thinks aloud, and the call."""
    if not isinstance(content, str):
        return "", content
    thought, end, call = content.rpartition(THOUGHT_END)
    return thought + end, call


def _content(turn: Turn, name: str) -> tuple[Any, str]:
    """The content, and the thought where it is a part of that."""
    content = turn.get("content", turn.get("value"))
    if content is None:
        if not any(turn.get(key) for key in ("tool_calls", "function_call", *REASONING)):
            raise BadRow(f"{name} has no content")
        return "", ""
    calling = str(turn.get("role", turn.get("from"))).strip().lower() in CALLING
    if not isinstance(content, list) or calling:
        return content, ""
    parts = [_part(part, f"{name}, part {index + 1},") for index, part in enumerate(content)]
    return ("".join(text for kind, text in parts if kind != "thinking"),
            "".join(text for kind, text in parts if kind == "thinking"))  # fmt: skip


def _part(part: Any, name: str) -> tuple[str, str]:
    """The kind and the text of a part of a content. Text alone, and thoughts, can be trained on."""
    if isinstance(part, str):
        return "text", part
    if not isinstance(part, dict):
        raise BadRow(f"{name} must be a part of type 'text', but is a {type(part).__name__}")
    kind = part.get("type", "text")
    key = {"thinking": "thinking", "reasoning": "thinking"}.get(kind, "text")
    if kind not in ("text", "input_text", "output_text", "thinking", "reasoning"):
        raise BadRow(f"{name} is of type {kind!r}: text alone is trained on")
    text = part.get(key, part.get("text"))
    if isinstance(text, list):  # Mistral's thoughts are lists of parts again
        text = "".join(_part(inner, name)[1] for inner in text)
    if not isinstance(text, str):
        raise BadRow(f"{name} must have its '{key}' as text")
    return "thinking" if key == "thinking" else "text", text


def _reasoning(turn: Turn, name: str) -> str:
    found = {key: turn[key] for key in REASONING if turn.get(key)}
    if any(value != next(iter(found.values())) for value in found.values()):
        raise BadRow(f"{name} has {' and '.join(map(repr, found))}, which differ: keep one")
    return next(iter(found.values()), "")


def _calls(turn: Turn, name: str) -> list[dict[str, Any]]:
    calls = read_calls(turn["tool_calls"], name) if turn.get("tool_calls") else []
    legacy = turn.get("function_call")
    return calls + (read_calls(legacy, name) if legacy else [])


def _call(call: Any, name: str) -> dict[str, Any]:
    call = from_json(call, name)
    if not isinstance(call, dict) or call.get("type", "function") != "function":
        raise BadRow(f"{name} must be a call of a function: {{name, arguments}}")
    function = call.get("function", call)
    said = function.get("name") if isinstance(function, dict) else None
    if not isinstance(said, str) or not said.strip():
        raise BadRow(f"{name} names no function")
    arguments = function.get("arguments", function.get("parameters"))
    arguments = {} if arguments in (None, "") else from_json(arguments, f"{name} arguments")
    if not isinstance(arguments, dict):
        raise BadRow(f"{name} arguments must be an object, but is a {type(arguments).__name__}")
    read: dict[str, Any] = {"type": "function", "function": {"name": said, "arguments": arguments}}
    return read | ({"id": str(call["id"])} if call.get("id") else {})


def _tool(tool: Any, name: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise BadRow(f"{name} must describe a function: {{name, description, parameters}}")
    function = tool.get("function", tool)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
        raise BadRow(f"{name} describes no function: it has no name")
    return tool if "function" in tool else {"type": "function", "function": tool}
