"""The base of every part of an experiment file."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator

ABSENT = ("off", "none", "no", "false")  # how people write null; YAML reads off and no as false


class Section(BaseModel):
    """Frozen, and closed to unknown keys: a typo is an error, never a default.

    Where a key may be null and takes no text and no truth value, `off`, `none` and `no` are null too (`wandb: off`,
    `adapter: none`), and where it takes a section that has a default for each of its keys, `on` is that section.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: _read(cls, key, value) for key, value in values.items()}


def _read(section: type[BaseModel], key: Any, value: Any) -> Any:
    field = section.model_fields.get(key) if isinstance(key, str) else None
    if field is None or not (isinstance(value, bool) or (isinstance(value, str) and value.lower() in ABSENT)):
        return value
    kinds = set(_kinds(field.annotation))
    listed = {word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)}
    if NoneType not in kinds or kinds & {str, bool, Any} or value in listed:
        return value
    if value is not True:
        return None
    sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    plain = len(sections) == 1 and not any(info.is_required() for info in sections[0].model_fields.values())
    return {} if plain else value


def _kinds(annotation: Any) -> list[Any]:
    """The alternatives of an annotation."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for alternative in get_args(annotation) for kind in _kinds(alternative)]
    return [annotation]
