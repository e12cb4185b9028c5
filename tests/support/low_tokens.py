"""A reward of one's own, as `file.py:function` names it."""

from typing import Any


def low(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """The share of a completion's tokens in the lower half of the vocabulary: a reward that always varies."""
    return [sum(token < 200 for token in ids) / len(ids) for ids in completion_ids]
