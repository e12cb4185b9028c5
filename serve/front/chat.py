"""The turns of a chat and the tools that the model may call, in OpenAI's shapes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, ValidationError
from pydantic_core import from_json

from serve.engine.messages import printable
from serve.front.body import MAX_WORD, Body, fault, first_fault

MAX_MESSAGES, MAX_PARTS = 2048, 256
MAX_TOOLS, MAX_CALLS = 128, 128

OF_MESSAGES: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "prefix": (False,),
    "refusal": (),
    "weight": (1, 1.0),
}


class TextPart(Body):
    """The one kind of content that a language model reads."""

    HARMLESS = ("cache_control",)
    type: Literal["text"]
    text: str


def _content(value: Any) -> str:
    """One text. Its parts are joined, as the model reads them one after the other."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list) or len(value) > MAX_PARTS:
        raise fault("", f"Give a text, or a list of at most {MAX_PARTS} parts of text")
    return "".join(_part(str(number), part) for number, part in enumerate(value))


def _part(number: str, part: Any) -> str:
    if not isinstance(part, dict):
        raise fault(number, 'Give a part as {"type": "text", "text": "..."}')
    kind = part.get("type")
    if kind != "text":
        named = f"a part of type '{printable(kind)}'" if isinstance(kind, str) else "a part without a type"
        raise fault(f"{number}.type", f"This model reads text alone, and not {named}", "unsupported_value")
    for name in part:
        if name not in ("type", "text", *TextPart.HARMLESS):
            raise fault(f"{number}.{name}", "There is no such field here", "unknown_field")
    if not isinstance(part.get("text"), str):
        raise fault(f"{number}.text", "Give a text")
    return str(part["text"])


Content = Annotated[str, PlainValidator(_content, json_schema_input_type=str | list[TextPart] | None)]
Word = Annotated[str, Field(min_length=1, max_length=MAX_WORD)]


class Function(Body):
    """What a tool is called and takes. `parameters` is a JSON Schema, which the template writes out."""

    NOT_YET: ClassVar = {"strict": (False,)}
    name: Word
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    """A function that the model may call."""

    type: Literal["function"]
    function: Function


def _tools(value: Any) -> list[Tool]:
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise fault("", f"Give a list of at most {MAX_TOOLS} tools")
    return [_tool(number, tool) for number, tool in enumerate(value)]


def _tool(number: int, given: Any) -> Tool:
    try:
        return Tool.model_validate(given)
    except ValidationError as error:
        raise fault("", f"Tool {number} cannot be used: {first_fault(error).message}") from None


def _arguments(value: Any) -> dict[str, Any]:
    """Clients send them as JSON in a text; templates write a mapping as JSON, and would write the text in quotes."""
    try:
        found = from_json(value, allow_inf_nan=False) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise fault("", "Give a JSON object, as text")
    return found


Tools = Annotated[list[Tool], PlainValidator(_tools, json_schema_input_type=list[Tool])]


class CalledFunction(Body):
    """The name of a tool that was called, and what it was given."""

    name: Word
    arguments: Annotated[dict[str, Any], PlainValidator(_arguments, json_schema_input_type=str | dict[str, Any])]


class ToolCall(Body):
    """One call in an earlier turn of the assistant."""

    HARMLESS = ("index",)
    id: str | None = Field(default=None, max_length=256)
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Body):
    """One turn of a chat."""

    NOT_YET = OF_MESSAGES
    role: Word
    content: Content = ""
    name: Word | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=MAX_CALLS, fail_fast=True)
    tool_call_id: str | None = Field(default=None, max_length=256)
    reasoning_content: str | None = None

    def plain(self) -> dict[str, Any]:
        """As chat templates take it: what was not said is not there."""
        rest = {"name": self.name, "tool_call_id": self.tool_call_id, "reasoning_content": self.reasoning_content}
        said = {"role": self.role, "content": self.content} | {key: value for key, value in rest.items() if value}
        if self.tool_calls:
            said["tool_calls"] = [call.model_dump(exclude_none=True) for call in self.tool_calls]  # type: ignore[assignment]
        return said
