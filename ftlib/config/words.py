"""Types and values of keys in the words of a person who writes YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

Node = dict[str, Any]  # of a JSON Schema

KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "`null`"}
MANY = {"text": "text", "whole number": "whole numbers", "number": "numbers", "value": "values"}
SHORT = {None: "null", True: "true", False: "false"}


def type_in_words(node: Node) -> str:
    """The type that a node of a JSON Schema allows: `whole number (1 or more), or null`."""
    kinds = list(_kinds(node))
    listed = [f"`{value_in_words(value)}`" for kind in kinds for value in _values(kind)]
    one_of = [f"one of {', '.join(listed)}"] if listed else []
    others = list(dict.fromkeys(_kind_in_words(kind, one_of) for kind in kinds if not _values(kind)))
    if listed and "`null`" in others:
        others.remove("`null`")
        one_of = [f"{one_of[0]}, `null`"]
    return _either([*one_of, *others])


def value_in_words(value: Any) -> str:
    """A value as YAML has it on one line. Of a section only the keys stand there that differ from their defaults."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {value_in_words(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(value_in_words, value))}]"
    if value is None or isinstance(value, bool):
        return SHORT[value]
    return re.sub(r"e-0", "e-", f"{value:g}") if isinstance(value, float) else str(value)


def _kinds(node: Node) -> Iterator[Node]:
    """The alternatives of a node, each of one type."""
    for alternative in node.get("anyOf") or node.get("oneOf") or [node]:
        types = alternative.get("type", "object" if "$ref" in alternative or "oneOf" in alternative else None)
        yield from ({**alternative, "type": one} for one in (types if isinstance(types, list) else [types]))


def _values(kind: Node) -> list[Any]:
    """The values that it lists; none where it allows all of its type."""
    return [kind["const"]] if "const" in kind else kind.get("enum", [])


def _kind_in_words(kind: Node, one_of: list[str]) -> str:
    if kind["type"] == "array":
        members = type_in_words(kind["items"])
        empty = "not empty" if kind.get("minItems") else ""
        if members in one_of:
            return _with("list of these", empty)
        return _with(f"list of {MANY[members]}", empty) if members in MANY else _with("list", f"of {members}", empty)
    if kind["type"] == "object":
        values = kind.get("additionalProperties")
        return _with("mapping", f"values: {type_in_words(values)}" if isinstance(values, dict) else "")
    return _with(KINDS.get(kind["type"], "value"), _bounds(kind))


def _with(word: str, *more: str) -> str:
    added = "; ".join(note for note in more if note)
    return f"{word} ({added})" if added else word


def _bounds(kind: Node) -> str:
    words = {"minimum": "{:g} or more", "exclusiveMinimum": "above {:g}"}
    words |= {"maximum": "{:g} or less", "exclusiveMaximum": "below {:g}"}
    return ", ".join(text.format(kind[key]) for key, text in words.items() if key in kind)


def _either(words: list[str]) -> str:
    if len(words) == 1:
        return words[0]
    comma = "," if len(words) > 2 or any(part in words[0] for part in (", ", " or ")) else ""
    return f"{', '.join(words[:-1])}{comma} or {words[-1]}"
