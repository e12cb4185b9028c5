"""Turns that stand as text in the cell of a table: as JSON they are read, and as Python prints them they are refused.

Any other text is a text, also one of JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ftlib.data.fields import BadRow, from_json
from ftlib.data.turns import ROLES

BEGUN = re.compile(r'\s*\[\s*\{\s*"(role|content|from|value)"\s*:')  # meant as turns, be it JSON or not
BY_PYTHON = re.compile(r"\s*(array\(\s*)?\[?\s*\{\s*'[^']*'\s*:")  # also as numpy prints a list, which pandas writes
SPEAKER, SPEECH = ("role", "from"), ("content", "value", "tool_calls", "function_call")


def turns_in(text: str, name: str) -> Any:
    """The turns, or the one turn, of a cell that holds any; else None. Raises BadRow for such as cannot be read."""
    if BEGUN.match(text):
        return from_json(text, name)
    if _is_printed_by_python(text):
        raise BadRow(
            f"{name} holds turns as Python prints them, not as JSON: write the cell with json.dumps, or the file as "
            ".jsonl"
        )
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    turns = value if isinstance(value, list) else [value]
    return value if turns and all(map(_is_turn, turns)) and any(map(_speaks, turns)) else None


def _is_printed_by_python(text: str) -> bool:
    whole = BY_PYTHON.match(text) and text.rstrip().endswith(("]", "}", ")"))
    return bool(whole) and all(any(f"'{key}':" in text for key in keys) for keys in (SPEAKER, SPEECH))


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and any(key in value for key in SPEAKER) and any(key in value for key in SPEECH)


def _speaks(turn: dict[str, Any]) -> bool:
    return str(turn.get("role", turn.get("from"))).strip().lower() in ROLES
