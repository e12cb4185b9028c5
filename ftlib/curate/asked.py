"""What a record asks and what it answers, as two texts: of any format, as `data.findings.gist` reads it."""

from __future__ import annotations

from collections.abc import Sequence

from ftlib.data.formats import Record, Turn


def asked_and_answered(record: Record) -> tuple[str, str]:
    """The texts before the answer, and those of it. Of a preference the answer is the chosen one, of a labelled text
    there is none, and a plain text is an answer."""
    if "chosen" in record:
        return _said(record["prompt"]), _said(record["chosen"])
    if "completion" in record:
        return _said(record["prompt"]), _said(record["completion"])
    if "text" in record:
        return (str(record["text"]), "") if "label" in record else ("", str(record["text"]))
    if "prompt" in record:
        return _said(record["prompt"]), str(record["answer"] or "")
    turns, last = record["messages"], record["trained_from"]
    last = last or max(index for index, turn in enumerate(turns) if turn["role"] == "assistant")
    return _said(turns[:last]), _said(turns[last:])


def text_of(record: Record) -> str:
    """All that a record says."""
    return "\n".join(part for part in asked_and_answered(record) if part)


def _said(turns: Sequence[Turn]) -> str:
    return "\n".join(str(turn["content"]) for turn in turns if turn["content"])
