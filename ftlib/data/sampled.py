"""The chats that an endpoint has sampled: its sample log, redacted as it was written (`serve/front/logs.py`), as rows.

A chat is taken whose answer came to its own end, and whose turns the log has. What is damaged or older is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlib.files.home import home

LOG = "samples.jsonl"


@dataclass(frozen=True)
class Chat:
    """A sampled request: `messages` are its turns, the answer last; `time` is in seconds since the epoch."""

    request: str
    time: float
    messages: list[dict[str, str]]


def sampled(name: str, since: float = -math.inf, until: float | None = None) -> Iterator[Chat]:
    """The chats with versions of a name, after `since` and not after `until`, the oldest file first."""
    latest = math.inf if until is None else until
    for file in _files():
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                chat = _chat(line, f"{name}@")
                if chat is not None and since < chat.time <= latest:
                    yield chat


def _files() -> list[Path]:
    """The files of the log: samples.jsonl.2, samples.jsonl.1, samples.jsonl."""
    found = (home() / "logs").glob(f"{LOG}*")
    return sorted(found, key=lambda file: (len(file.name), file.name), reverse=True)


def _chat(line: str, version: str) -> Chat | None:
    try:
        row = json.loads(line)
        whole = row["status"] == 200 and row["finish_reason"] == "stop" and str(row["version"]).startswith(version)
        turns = [*row["messages"], {"role": "assistant", "content": row["answer"]}]
        if whole and len(turns) > 1 and all(map(_is_turn, turns)) and math.isfinite(row["time"]):
            return Chat(str(row["request_id"]), float(row["time"]), turns)
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    return None


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and set(turn) == {"role", "content"}
        and all(isinstance(text, str) and text for text in turn.values())
    )
