"""What a teacher wrote, read: pairs of a question and an answer, a text alone, an answer after its reasoning.

Teachers keep to a form more or less. So JSON and lines are both read, fences and numbers go, and what cannot be read is
nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

ASKED = ("question", "instruction", "prompt", "task", "q")
ANSWERED = ("answer", "response", "output", "a")
THOUGHT_BEGIN, THOUGHT_END = "<think>", "</think>"
FENCE = re.compile(r"^```\w*\n(.*?)\n?```\s*$", re.DOTALL)
BEGIN = r"^[ \t]*(?:[-*#]{1,6}[ \t]*)?(?:\d{1,4}[.)][ \t]*)?\*{0,3}"
QUESTION = re.compile(
    BEGIN + r"(?:Question|Instruction|Task|Frage|Q)[ \t]*\d*\**[ \t]*:\**[ \t]*", re.MULTILINE | re.IGNORECASE
)
ANSWER = re.compile(
    BEGIN + r"(?:Answer|Response|Output|Antwort|A)[ \t]*\d*\**[ \t]*:\**[ \t]*", re.MULTILINE | re.IGNORECASE
)
LEAD = re.compile(r"^(?:sure|certainly|of course|here (?:is|are))\b[^\n]*:\s*\n+", re.IGNORECASE)
RULE = re.compile(r"\d{1,4}[.)]|-{3,}|`{3}|\*\*")  # a line between two pairs
LONGEST = 200_000  # characters of a reply that are read
TRIES = 1_000  # braces that begin no JSON


def without_thoughts(text: str) -> tuple[str, str]:
    """A reply without what a reasoning model thought before it, and the thoughts."""
    thoughts, end, said = text.partition(THOUGHT_END)
    if not end:
        return text.strip(), ""
    return said.strip(), thoughts.strip().removeprefix(THOUGHT_BEGIN).strip()


def questions_and_answers(reply: str) -> list[tuple[str, str]]:
    """The pairs of a reply, in its order: of JSON, or of lines that begin with Question: and Answer:."""
    text = without_thoughts(reply[:LONGEST])[0]
    return list(_of_json(text)) or list(_of_lines(text))


def alone(reply: str) -> str:
    """The text of a reply that should hold nothing else: without thoughts, a fence, marks, quotes around it, and a line
    like 'Here is ...:' before it."""
    text = without_thoughts(reply[:LONGEST])[0]
    text = LEAD.sub("", text)
    if fenced := FENCE.match(text):
        text = fenced[1]
    text = text.replace("<text>", "").replace("</text>", "").strip()
    quoted = len(text) > 1 and text[0] + text[-1] in ('""', "“”", "''") and text.count(text[0]) <= 2
    return text[1:-1].strip() if quoted else text


def answer_line(reply: str) -> tuple[str, str]:
    """What stands after the last 'Answer:', and what before it. Without such a line the whole is the answer."""
    places = list(re.finditer(r"(?:^|\n)[ \t*#]*(?:final )?answer[ \t*]*:[ \t*]*", reply, re.IGNORECASE))
    if not places:
        return reply.strip(), ""
    last = places[-1]
    return reply[last.end() :].strip(), reply[: last.start()].strip()


def _of_json(text: str) -> Iterator[tuple[str, str]]:
    for found in _objects(text):
        asked, answered = _named(found, ASKED), _named(found, ANSWERED)
        if asked and answered:
            yield asked, answered


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The objects of JSON that stand in a text, those within lists too."""
    decoder, place, failed = json.JSONDecoder(), 0, 0
    while (place := text.find("{", place)) >= 0 and failed < TRIES:
        try:
            found, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place, failed = place + 1, failed + 1
            continue
        if isinstance(found, dict):
            inner = [one for value in found.values() if isinstance(value, list) for one in value]
            yield found
            yield from (one for one in inner if isinstance(one, dict))


def _named(found: dict[str, Any], names: tuple[str, ...]) -> str:
    lower = {str(key).lower(): value for key, value in found.items()}
    value = next((lower[name] for name in names if name in lower), "")
    return value.strip() if isinstance(value, str) else ""


def _of_lines(text: str) -> Iterator[tuple[str, str]]:
    first, *parts = QUESTION.split(text)
    for part in (first, *parts) if ANSWER.search(first) else parts:  # the word before the first one may be left out
        asked, *answers = ANSWER.split(part, maxsplit=1)
        if answers and asked.strip() and answers[0].strip():
            yield _trimmed(asked), _trimmed(answers[0])


def _trimmed(text: str) -> str:
    """Without what stands between two pairs: the number of the next one, a rule, the end of a fence."""
    lines = text.rstrip().split("\n")
    while len(lines) > 1 and (not lines[-1].strip() or RULE.fullmatch(lines[-1].strip())):
        lines.pop()
    return "\n".join(lines).strip().strip("*").strip()
