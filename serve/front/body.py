"""The JSON body of a request: every field is obeyed, known to change nothing, or refused by its name.

Every bound stands before the work that it bounds, and the first fault ends the look: a body of a megabyte has room for
300,000.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError, from_json

from ftlib.errors import nearest
from serve.engine.messages import Refusal, Refused, printable

Parsed = TypeVar("Parsed", bound="Body")
MAX_WORD = 64  # characters of a role, or of a tool's name


def _publish(schema: dict[str, Any], shape: type[Any]) -> None:
    """What the OpenAPI says of fields that are none of the model's own."""
    given = schema.setdefault("properties", {})
    given |= {name: {} for name in shape.HARMLESS}
    given |= {name: {"enum": [None, *values]} for name, values in shape.NOT_YET.items()}
    schema["additionalProperties"] = False


class Body(BaseModel):
    """Strict, since OpenAI's server takes no "5" for a 5 either."""

    HARMLESS: ClassVar[tuple[str, ...]] = ()
    NOT_YET: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, json_schema_extra=_publish)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        """Ends at the first field that would be dropped: pydantic would collect them all."""
        if isinstance(given, dict):
            for name, value in given.items():
                if name not in cls.model_fields and name not in cls.HARMLESS:
                    cls._check_foreign(name, value)
        return given

    @classmethod
    def _check_foreign(cls, name: str, value: Any) -> None:
        if name not in cls.NOT_YET:
            near = nearest(name[:MAX_WORD], [*cls.model_fields, *cls.NOT_YET, *cls.HARMLESS])
            raise fault(name, f"There is no such field here.{near}", "unknown_field")
        harmless = cls.NOT_YET[name]
        if value is not None and not any(type(value) is type(option) and value == option for option in harmless):
            message = f"This endpoint does not support it yet: leave '{name}' out"
            raise fault(name, message, "unsupported_value")


def fault(field: str, message: str, code: str = "") -> PydanticCustomError:
    """`field` is what follows the path that pydantic knows."""
    return PydanticCustomError("ours", "{message}", {"message": message, "field": field, "code": code})


def parse(shape: type[Parsed], body: bytes) -> Parsed:
    """The request in a body. Raises Refused, with the path of what is no JSON, wrong, unknown, or not there yet."""
    with _uncollected():
        try:
            content = from_json(body, allow_inf_nan=False)  # at most 200 deep, no number of more than 4,300 digits
        except ValueError as error:
            raise Refused(Refusal(f"body: it is no JSON: {error}.")) from None
        if not isinstance(content, dict):
            raise Refused(Refusal("body: give a JSON object."))
        try:
            return shape.model_validate(content)
        except ValidationError as error:
            raise Refused(first_fault(error)) from None


@contextmanager
def _uncollected() -> Iterator[None]:
    """A megabyte has room for 300,000 lists, and for every few hundred Python would look through all that there is."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def first_fault(error: ValidationError) -> Refusal:
    """The first fault, in a person's words."""
    first = error.errors(include_url=False, include_input=False)[0]
    told = first.get("ctx", {}) if first["type"] == "ours" else {}
    # A union adds the names of its branches to the path ("stop.str"); a person wants the field.
    path = [str(part) for part in first["loc"] if part != "str" and "[" not in str(part)]
    param = ".".join(printable(part) for part in (*path, told.get("field")) if part)
    return Refusal(f"{param or 'body'}: {first['msg'].rstrip('.?')}{'?' if first['msg'].endswith('?') else '.'}",
                   param or None, told.get("code") or None)  # fmt: skip
