"""A metric that is a function of the user's: `score(answer, reference, prompt) -> float`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ftlib.config.evaluation import Function
from ftlib.errors import ConfigError
from ftlib.evaluation.score import Score, mean_of
from ftlib.evaluation.task import Answer, Question
from ftlib.methods.import_path import load_function


def function(metric: Function, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The mean of what the function returns. It gets two texts and the prompt as a list of turns
    ({"role": ..., "content": ...}). A row for which it returns NaN has no value.

    Raises ConfigError where the function is not there, fails, or returns no number.
    """
    called = loaded(metric)
    pairs = zip(questions, answers, strict=True)
    return mean_of(metric, [_value(metric, called, row, *pair) for row, pair in enumerate(pairs, start=1)])


def loaded(metric: Function) -> Callable[..., Any]:
    """The function. Raises ConfigError."""
    return load_function(metric.function, "metric function")


def _value(metric: Function, called: Callable[..., Any], row: int, question: Question, answer: Answer) -> float:
    where = f"metric function: {metric.function} on row {row}"
    try:
        value = called(answer.text, question.reference, [dict(turn) for turn in question.prompt])
    except Exception as error:  # a user's function fails in its own way
        raise ConfigError(f"{where} raises {type(error).__name__}: {error}.") from error
    try:
        found = math.inf if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.inf
    if math.isinf(found):
        raise ConfigError(f"{where} returns {value!r:.60}, which is no finite number.")
    return found
