"""Metrics of answers that should be JSON: whether they are, and how many of their fields are right.

An answer is JSON or it is not: text around it, and the fence of a code block, make it none, as they would for the
program that reads it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftlib.config.evaluation import JsonF1, ValidJson
from ftlib.errors import ConfigError, DataError
from ftlib.evaluation.score import Score, mean_of, share_of
from ftlib.evaluation.task import Answer, Question

LONGEST = 100_000  # characters
DEEPEST = 50  # levels
NOT_JSON = object()


def valid_json(metric: ValidJson, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The share of answers that are JSON and fit the schema; without one, that are an object. Raises ConfigError for a
    schema that cannot be used."""
    fits = Schema(metric.json_schema if metric.json_schema is not None else {"type": "object"}, metric.type)
    return share_of(metric, [fits(parsed(answer.text)) for answer in answers])


def json_f1(metric: JsonF1, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The mean over rows of the F1 of fields: a field is the path to a value that holds no others, and the value; the
    path of a list's member has its place. 0 where the answer is no JSON or does not fit the schema. Raises ConfigError
    for a schema that cannot be used, and DataError for a reference that is no JSON."""
    fits = Schema(metric.json_schema if metric.json_schema is not None else {}, metric.type)
    right = [_reference(question, row) for row, question in enumerate(questions, start=1)]
    said = [parsed(answer.text) for answer in answers]
    return mean_of(metric, [_f1(mine, theirs) if fits(mine) else 0.0 for mine, theirs in zip(said, right, strict=True)])


def _reference(question: Question, row: int) -> Any:
    value = parsed(question.reference)
    if value is NOT_JSON:
        raise DataError(f"metric json_f1: the reference of row {row} is no JSON: '{question.reference[:60]}'.")
    return value


def _f1(said: Any, right: Any) -> float:
    mine, theirs = Counter(_fields(said)), Counter(_fields(right))
    return 2 * (mine & theirs).total() / (mine.total() + theirs.total())


def _fields(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each (path, kind, value). True is no 1, and 1.0 is 1."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield from _fields(member, (*path, name))
    if isinstance(value, dict | list):
        if not value:
            yield path, type(value), None
    else:
        yield path, float if isinstance(value, int | float) and not isinstance(value, bool) else type(value), value


def parsed(text: str) -> Any:
    """The value of a JSON text; NOT_JSON where it is none. RFC 8259 to the letter: no NaN and no infinity, no name
    twice in an object; and no more than 100,000 characters and 50 levels."""
    if len(text) > LONGEST:
        return NOT_JSON
    try:
        value = json.loads(
            text, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_with_names_once, strict=True
        )
    except (ValueError, RecursionError):
        return NOT_JSON
    return value if _levels(value) <= DEEPEST else NOT_JSON


def _refused(word: str) -> Any:
    raise ValueError(word)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value


def _with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _levels(value: Any) -> int:
    """How deep objects and lists lie in each other. Without recursion: the value may be deep."""
    levels, layer = 0, [value]
    while layer := [member for holder in layer for member in _held(holder)]:
        levels += 1
    return levels


def _held(value: Any) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()


class Schema:
    """A JSON Schema that values are checked against. It reads nothing from a network. Raises ConfigError for a file
    that cannot be read, and for what is no schema."""

    def __init__(self, given: dict[str, Any] | str, metric: str) -> None:
        import jsonschema
        import referencing

        self.where = f"metric {metric}: json_schema"
        schema = _from_file(given, self.where) if isinstance(given, str) else given
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise ConfigError(f"{self.where}: it is no JSON Schema: {error.message}.") from None
        self.unresolvable = referencing.exceptions.Unresolvable
        self.validator = kind(schema, registry=referencing.Registry())

    def __call__(self, value: Any) -> bool:
        if value is NOT_JSON:
            return False
        try:
            return bool(self.validator.is_valid(value))
        except self.unresolvable as error:
            raise ConfigError(f"{self.where}: it refers to '{error.ref}', which is not in it.") from None
        except RecursionError:  # a schema that refers to itself
            return False


def _from_file(path: str, where: str) -> Any:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{where}: there is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {path} cannot be read: {error}.") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {path} is no JSON: {error}.") from None
