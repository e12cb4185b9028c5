"""A task: questions with their right answers, read from a file of any format that trains with answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Turn = dict[str, Any]  # {"role": ..., "content": ...}


@dataclass(frozen=True)
class Question:
    """One row of a task. `prompt` is a chat up to the answer that is asked for."""

    prompt: tuple[Turn, ...]
    reference: str
    group: str | None = None  # what rows of one origin share


@dataclass(frozen=True)
class Answer:
    """What a model wrote. `nll` is the negative log-likelihood of the reference's `nll_tokens`, where it was asked
    for."""

    text: str
    tokens: int = 0
    seconds: float = 0.0
    nll: float | None = None
    nll_tokens: int = 0
