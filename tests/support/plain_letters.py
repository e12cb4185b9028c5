"""A reward of one's own, as `file.py:function` names it."""

from typing import Any


def lower(completions: list[Any], **columns: Any) -> list[float]:
    """The share of a completion's characters that are small letters: a reward that nearly always varies."""
    texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
    return [sum(letter.islower() for letter in text) / max(len(text), 1) for text in texts]
