"""Rows of several forms of a conversation in one version (the chats of a log beside prompts and completions) become
chats, all of them: a version is trained on in one format."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from ftlib.curate.rows import ID, RESERVED, Row
from ftlib.data.fields import BadRow, Unweighted
from ftlib.data.formats import SYSTEM, detect, normalize
from ftlib.errors import DataError

FORMS = ("messages", "sharegpt", "alpaca", "prompt_completion")  # which all become the same record
TURNS = ("prompt", "completion", "conversations", "instruction", "input", "output", "history", *SYSTEM)


def are_mixed(rows: Iterable[Row]) -> bool:
    """Whether rows come in several forms of a conversation."""
    found: set[str] = set()
    for row in rows:
        found.add(_form(frozenset(row)))
        if len(found.intersection(FORMS)) > 1:
            return True
    return False


def as_chat(row: Row) -> Row:
    """The row with `messages` in the place of its turns. What carries no loss still carries none: its weight is 0.

    A row that is no conversation, or a damaged one, stays as it is: who trains on it is told.
    """
    form = _form(frozenset(row))
    if form not in FORMS or form == FORMS[0]:
        return row
    fields = {name: value for name, value in row.items() if name not in RESERVED}
    try:
        record = normalize(form, fields)
    except (BadRow, Unweighted):
        return row
    chat = {**{name: value for name, value in row.items() if name not in TURNS}, "messages": list(_weighted(record))}
    return chat if _form(frozenset(chat)) == FORMS[0] else row


def _weighted(record: dict[str, Any]) -> Iterable[dict[str, Any]]:
    silent = record.get("silent", ())
    for index, turn in enumerate(record["messages"]):
        answer = turn["role"] == "assistant"
        yield {**turn, "weight": 0} if index in silent or (answer and index < record["trained_from"]) else turn


@cache
def _form(columns: frozenset[str]) -> str:
    try:
        return detect("auto", columns - {*RESERVED}, ID)
    except DataError:
        return ""
