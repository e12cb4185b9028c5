"""What a client may ask, in OpenAI's shapes: https://platform.openai.com/docs/api-reference. `top_k`, `min_p` and
`timeout` are ours, under the names that vLLM and others gave them.

A field is obeyed, known to change nothing, or refused by its name: nobody takes an answer for what it is not. Every
bound stands before the work that it bounds, and the first fault ends the look: a body of a megabyte has room for
300,000.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError, from_json

from ftlib.errors import nearest
from ftlib.registry.registry import Version
from serve.engine.messages import Ask, Refusal, Refused, printable

Shape = TypeVar("Shape", bound="Request")
MAX_CHOICES = 16  # answers to one prompt
MAX_PROMPTS = 2048  # and texts: the engine takes fewer, and says how many
MAX_MESSAGES, MAX_PARTS = 2048, 256
MAX_TOOLS, MAX_CALLS = 128, 128
MAX_BIASES = 1024  # tokens in one logit_bias
MAX_STOPS, MAX_STOP = 16, 1024  # stop strings, and their characters: each is looked for after each token
MAX_WORD = 64  # characters of a role, or of a tool's name

# Fields that say nothing to the model.
HARMLESS: tuple[str, ...] = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
HARMLESS += ("prompt_cache_retention", "request_id", "cache_salt", "prediction")

# Fields that would change the answer, of OpenAI's and of vLLM's, each with the values that ask for nothing.
NOT_YET: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (),
    "allowed_token_ids": (),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "logits_processors": ([],),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "no_repeat_ngram_size": (0,),
    "parallel_tool_calls": (True,),
    "priority": (0,),
    "prompt_logprobs": (),
    "reasoning_effort": (),
    "repetition_penalty": (1, 1.0),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "suffix": ("",),
    "tool_choice": ("auto",),
    "truncate_prompt_tokens": (),
    "typical_p": (1, 1.0),
    "use_beam_search": (False,),
    "verbosity": (),
    "web_search_options": (),
}
OF_MESSAGES: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "prefix": (False,),
    "refusal": (),
    "weight": (1, 1.0),
}


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
            raise _fault(name, f"There is no such field here.{near}", "unknown_field")
        harmless = cls.NOT_YET[name]
        if value is not None and not any(type(value) is type(option) and value == option for option in harmless):
            message = f"This endpoint does not support it yet: leave '{name}' out"
            raise _fault(name, message, "unsupported_value")


def _fault(field: str, message: str, code: str = "") -> PydanticCustomError:
    """`field` is what follows the path that pydantic knows."""
    return PydanticCustomError("ours", "{message}", {"message": message, "field": field, "code": code})


# --- prompts ------------------------------------------------------------------------------------------------------


def _prompt(value: Any) -> Any:
    """A text, token ids, or a list of either: looked at once, where pydantic would try each of the four in turn."""
    if isinstance(value, str) or _is_ids(value):
        return value
    if not isinstance(value, list):
        raise _fault("", "Give a text, a list of token ids, or a list of texts or of such lists")
    if len(value) > MAX_PROMPTS:
        raise _fault("", f"Give at most {MAX_PROMPTS} prompts, not {len(value)}")
    first = type(value[0])
    for number, prompt in enumerate(value):
        if type(prompt) is not first or not (first in (str, int) or _is_ids(prompt)):
            raise _fault(str(number), "Give texts alone, or token ids alone, or lists of them alone")
    return value


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _texts(value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or len(found) > MAX_PROMPTS:
        raise _fault("", f"Give a text, or a list of at most {MAX_PROMPTS} texts")
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise _fault(str(number), "Give a text")
    return found


Prompts = str | list[int] | list[str] | list[list[int]]
Prompt = Annotated[Any, PlainValidator(_prompt, json_schema_input_type=Prompts)]
Texts = Annotated[list[str], PlainValidator(_texts, json_schema_input_type=str | list[str])]


# --- messages -----------------------------------------------------------------------------------------------------


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
        raise _fault("", f"Give a text, or a list of at most {MAX_PARTS} parts of text")
    return "".join(_part(str(number), part) for number, part in enumerate(value))


def _part(number: str, part: Any) -> str:
    if not isinstance(part, dict):
        raise _fault(number, 'Give a part as {"type": "text", "text": "..."}')
    kind = part.get("type")
    if kind != "text":
        named = f"a part of type '{printable(kind)}'" if isinstance(kind, str) else "a part without a type"
        raise _fault(f"{number}.type", f"This model reads text alone, and not {named}", "unsupported_value")
    for name in part:
        if name not in ("type", "text", *TextPart.HARMLESS):
            raise _fault(f"{number}.{name}", "There is no such field here", "unknown_field")
    if not isinstance(part.get("text"), str):
        raise _fault(f"{number}.text", "Give a text")
    return str(part["text"])


Content = Annotated[str, PlainValidator(_content, json_schema_input_type=str | list[TextPart] | None)]
Word = Annotated[str, Field(min_length=1, max_length=MAX_WORD)]


class Function(Body):
    """What a tool is called and takes. `parameters` is a JSON Schema, which the template writes out."""

    NOT_YET = {"strict": (False,)}
    name: Word
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    """A function that the model may call."""

    type: Literal["function"]
    function: Function


def _tools(value: Any) -> list[Tool]:
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise _fault("", f"Give a list of at most {MAX_TOOLS} tools")
    return [_tool(number, tool) for number, tool in enumerate(value)]


def _tool(number: int, given: Any) -> Tool:
    try:
        return Tool.model_validate(given)
    except ValidationError as error:
        raise _fault("", f"Tool {number} cannot be used: {_first(error).message}") from None


def _arguments(value: Any) -> dict[str, Any]:
    """Clients send them as JSON in a text; templates write a mapping as JSON, and would write the text in quotes."""
    try:
        found = from_json(value, allow_inf_nan=False) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _fault("", "Give a JSON object, as text")
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


# --- requests -----------------------------------------------------------------------------------------------------


class StreamOptions(Body):
    """`include_usage` adds a last chunk with the token counts."""

    HARMLESS = ("include_obfuscation",)
    NOT_YET = {"continuous_usage_stats": (False,)}
    include_usage: bool = False


class Request(Body):
    """What every request says: which of the names that are served it is for."""

    HARMLESS = HARMLESS
    model: str = Field(min_length=1, max_length=128)
    timeout: float | None = Field(default=None, gt=0)  # seconds


class GenerationRequest(Request):
    """What chat and completions share."""

    NOT_YET = NOT_YET
    max_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)  # -1 and 0: no limit
    min_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: (
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(default=None, max_length=MAX_BIASES)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _few_biases(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_BIASES:
            raise _fault("", f"Give at most {MAX_BIASES} tokens, not {len(value)}")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _few(cls, value: Any) -> Any:
        given = [value] if isinstance(value, str) else value or []
        if isinstance(given, list):
            texts = [text for text in given[: MAX_STOPS + 1] if isinstance(text, str)]
            if len(given) > MAX_STOPS or any(len(text) > MAX_STOP for text in texts):
                raise _fault("", f"Give at most {MAX_STOPS} strings of at most {MAX_STOP} characters")
            if "" in texts:
                raise _fault("", "An empty text stops nothing: leave it out")
        return value

    def ask(self, version: Version) -> Ask:
        raise NotImplementedError

    @property
    def chat(self) -> bool:
        return isinstance(self, ChatRequest)

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def _shared(self) -> dict[str, Any]:
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "n": self.n,
        }
        return {
            **{name: value for name, value in given.items() if value is not None},
            "logit_bias": {int(token): bias for token, bias in (self.logit_bias or {}).items()},
            "seed": self.seed,
            "stop": (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            "stream": bool(self.stream),
            "seconds": self.timeout,
        }


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions. `max_completion_tokens` is the newer name of `max_tokens`."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    tools: Tools | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    @field_validator("messages", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) > MAX_MESSAGES:
            raise _fault("", f"Give at most {MAX_MESSAGES}, not {len(value)}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> ChatRequest:
        """What contradicts itself would be half obeyed."""
        if self.top_logprobs and not self.logprobs:
            raise _fault("top_logprobs", "It needs 'logprobs': true")
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise _fault("max_completion_tokens", "It is the newer name of 'max_tokens': give one of them")
        return self

    def ask(self, version: Version) -> Ask:
        return Ask(
            version,
            messages=[message.plain() for message in self.messages],
            tools=[tool.model_dump(exclude_none=True) for tool in self.tools or ()],
            max_tokens=self.max_completion_tokens or self.max_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            **self._shared(),
        )


class CompletionRequest(GenerationRequest):
    """POST /v1/completions. Prompts are texts or token ids; `max_tokens` is 16 unless given, as OpenAI has it."""

    prompt: Prompt
    max_tokens: int | None = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=20)

    def ask(self, version: Version) -> Ask:
        return Ask(version, tuple(self.prompts), max_tokens=self.max_tokens, logprobs=self.logprobs, **self._shared())

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or many, whichever way they came. A list of ids is one prompt."""
        if isinstance(self.prompt, str) or not self.prompt or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class ClassifyRequest(Request):
    """POST /v1/classify, of ours: which label a text has."""

    input: Texts

    @property
    def texts(self) -> list[str]:
        return self.input


def parse(shape: type[Shape], body: bytes) -> Shape:
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
            raise Refused(_first(error)) from None


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


def _first(error: ValidationError) -> Refusal:
    """The first fault, in a person's words."""
    first = error.errors(include_url=False, include_input=False)[0]
    told = first.get("ctx", {}) if first["type"] == "ours" else {}
    # A union adds the names of its branches to the path ("stop.str"); a person wants the field.
    path = [str(part) for part in first["loc"] if part != "str" and "[" not in str(part)]
    param = ".".join(printable(part) for part in (*path, told.get("field")) if part)
    return Refusal(f"{param or 'body'}: {first['msg'].rstrip('.?')}{'?' if first['msg'].endswith('?') else '.'}",
                   param or None, told.get("code") or None)  # fmt: skip
