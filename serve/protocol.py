"""The two shapes of a request: OpenAI's outside, over HTTP; `Ask` and `Piece` inside, between Api and Engine.

OpenAI's: https://platform.openai.com/docs/api-reference (chat completions, completions, models, errors). `top_k`,
`min_p` and `timeout` are ours, under the names that vLLM and others gave them. Fields that nobody knows are ignored, as
every compatible server does; fields that would change the answer and are not there yet are refused, so that nobody
takes an answer for what it is not.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from ftlib.registry.registry import Version

FinishReason = Literal["stop", "length"]
Shape = TypeVar("Shape", bound="Request")
MAX_CHOICES = 16  # answers to one request
MAX_BIASES = 1024  # tokens in one logit_bias
MAX_STOPS, MAX_STOP = 16, 1024  # stop strings, and their characters: each is looked for after each token

# Each with the values that ask for nothing.
NOT_YET: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
}


@dataclass(frozen=True)
class Ask:
    """What Api asks of an Engine: prompts as text or token ids, or the messages of a chat (role and content each)."""

    version: Version
    prompts: tuple[str | list[int], ...] = ()
    messages: list[dict[str, str]] | None = None
    max_tokens: int | None = None
    n: int = 1  # answers to each prompt
    stop: tuple[str, ...] = ()
    stream: bool = False
    seconds: float | None = None  # after which nobody wants the answer any more
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None
    logprobs: int | None = None  # how many alternatives are told beside each token; None: nothing is told
    tells_prompt: bool = False  # whether the first piece tells what the model read

    def sampling(self, choice: int) -> dict[str, Any]:
        """The fields that say how a token is drawn. Each choice has a seed of its own."""
        names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "logit_bias")
        own = None if self.seed is None else self.seed + choice
        return {**{name: getattr(self, name) for name in names}, "logprobs": self.logprobs, "seed": own}


@dataclass(frozen=True)
class TokenLogprob:
    """One token as text, its log-probability, and the likeliest (text, log-probability) pairs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What comes back of one choice: text with what is told of its tokens; in its last piece why it ended.

    `completion_tokens` are the choice's so far, `prompt_tokens` those of all prompts. In seconds since the request came
    to the engine: `queued` until its prompt was read, `waited` until its first token was there. `prompt` is the first one as
    the model read it, template and all but for special tokens: in the first piece, where that was asked for.
    """

    text: str = ""
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    completion_tokens: int = 0
    prompt_tokens: int = 0
    queued: float = 0.0
    waited: float = 0.0
    prompt: str | None = None

    def after(self, before: Piece) -> Piece:
        """The two as one; `before` is an earlier piece of the same choice."""
        return replace(self, text=before.text + self.text, logprobs=before.logprobs + self.logprobs)


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered, for the person who sent it."""

    message: str
    param: str | None = None
    code: str | None = None
    status: int = 400
    type: str = "invalid_request_error"
    retry_after: int | None = None  # seconds

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class Refused(Exception):
    """Carries a Refusal up to the answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Body(BaseModel):
    """Strict, since OpenAI's server takes no "5" for a 5 either."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


class StreamOptions(Body):
    """`include_usage` adds a last chunk with the token counts."""

    include_usage: bool = False


class Request(Body):
    """What every request says: which of the names that are served it is for."""

    model: str = Field(min_length=1, max_length=128)


class GenerationRequest(Request):
    """What chat and completions share."""

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
    timeout: float | None = Field(default=None, gt=0)  # seconds

    @field_validator("stop")
    @classmethod
    def _few(cls, value: str | list[str] | None) -> str | list[str] | None:
        given = [value] if isinstance(value, str) else value or []
        if len(given) > MAX_STOPS or any(len(each) > MAX_STOP for each in given):
            raise PydanticCustomError("stop", f"Give at most {MAX_STOPS} strings of at most {MAX_STOP} characters")
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


class TextPart(Body):
    """The one kind of content that a language model reads."""

    type: Literal["text"]
    text: str


class Message(Body):
    """One turn of a chat."""

    role: str
    content: str | list[TextPart] | None = None

    def plain(self) -> dict[str, str]:
        """Role and text, as chat templates take them."""
        parts = self.content or ""
        return {"role": self.role, "content": parts if isinstance(parts, str) else "".join(part.text for part in parts)}


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions. `max_completion_tokens` is the newer name of `max_tokens`."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    def ask(self, version: Version) -> Ask:
        return Ask(
            version,
            messages=[message.plain() for message in self.messages],
            max_tokens=self.max_completion_tokens or self.max_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            **self._shared(),
        )


class CompletionRequest(GenerationRequest):
    """POST /v1/completions. Prompts are texts or token ids; `max_tokens` is 16 unless given, as OpenAI has it."""

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int | None = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=20)

    def ask(self, version: Version) -> Ask:
        return Ask(version, tuple(self.prompts), max_tokens=self.max_tokens, logprobs=self.logprobs, **self._shared())

    @property
    def prompts(self) -> list[str | list[int]]:
        """One or many, whichever way they came. A list of ids is one prompt."""
        if isinstance(self.prompt, str) or not self.prompt or isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return list(self.prompt)


class ClassifyRequest(Request):
    """POST /v1/classify, of ours: which label a text has."""

    input: str | list[str]

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


def parse(shape: type[Shape], body: bytes) -> Shape:
    """The request in a body. Raises Refused for what is no JSON, has a wrong field, or asks for what is not there yet."""
    try:
        request = shape.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # A union adds the names of its branches to the path ("stop.str"); a person wants the field.
        param = ".".join(str(part) for part in first["loc"] if part != "str" and "[" not in str(part))
        raise Refused(Refusal(f"{param or 'body'}: {first['msg']}.", param or None)) from None
    for name, harmless in NOT_YET.items():
        value = (request.model_extra or {}).get(name)
        if value is not None and not any(type(value) is type(each) and value == each for each in harmless):
            raise Refused(
                Refusal(f"{name}: {value!r} is not supported yet: leave '{name}' out.", name, "unsupported_value")
            )
    return request


@dataclass(frozen=True)
class Reply:
    """Answers in OpenAI's shape, whole or as the chunks of a stream. `version` is the one that answered."""

    chat: bool
    model: str
    version: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: list[Piece], usage: dict[str, int]) -> dict[str, Any]:
        """All choices, each joined into one piece."""
        return {**self._head("chat.completion"), "choices": [self._choice(each) for each in choices], "usage": usage}

    def opening(self, index: int) -> dict[str, Any]:
        """A chat's stream starts with who speaks."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}, Piece(index=index))

    def chunk(self, piece: Piece) -> dict[str, Any]:
        if self.chat:
            return self._chunk({"delta": {"content": piece.text} if piece.text else {}}, piece)
        return self._chunk({"text": piece.text}, piece)

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage}

    def _choice(self, piece: Piece) -> dict[str, Any]:
        content = {"message": {"role": "assistant", "content": piece.text}} if self.chat else {"text": piece.text}
        told = self._logprobs(piece)
        return {"index": piece.index, **content, "finish_reason": piece.finish_reason, "logprobs": told}

    def _chunk(self, content: dict[str, Any], piece: Piece) -> dict[str, Any]:
        told = self._logprobs(piece)
        choice = {"index": piece.index, **content, "finish_reason": piece.finish_reason, "logprobs": told}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not piece.logprobs:
            return None
        if self.chat:
            return {
                "content": [{**_told(each.token, each.logprob), "top_logprobs": _top(each)} for each in piece.logprobs]
            }
        return {
            "tokens": [each.token for each in piece.logprobs],
            "token_logprobs": [each.logprob for each in piece.logprobs],
            "top_logprobs": [dict(reversed(each.top)) for each in piece.logprobs],
            "text_offset": _offsets(each.token for each in piece.logprobs),
        }

    def _head(self, kind: str) -> dict[str, Any]:
        prefix, kind = ("chatcmpl", kind) if self.chat else ("cmpl", "text_completion")
        head = {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}
        return {**head, "system_fingerprint": self.version}


@dataclass
class Tally:
    """The pieces of one request as they come: joined by choice, and counted."""

    prompt_tokens: int = 0
    queued: float = 0.0
    waited: float = 0.0
    prompt: str | None = None
    choices: dict[int, Piece] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        self.prompt = self.prompt if piece.prompt is None else piece.prompt
        self.prompt_tokens, self.queued = piece.prompt_tokens, piece.queued
        self.waited = self.waited or piece.waited
        before = self.choices.get(piece.index, Piece(index=piece.index))
        self.choices[piece.index] = piece.after(before)

    @property
    def completion_tokens(self) -> int:
        return sum(piece.completion_tokens for piece in self.choices.values())

    @property
    def in_order(self) -> list[Piece]:
        return [self.choices[index] for index in sorted(self.choices)]

    @property
    def usage(self) -> dict[str, int]:
        """Token counts; the token that ended an answer counts, as it was generated."""
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {**counts, "total_tokens": sum(counts.values())}


def _told(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _top(each: TokenLogprob) -> list[dict[str, Any]]:
    return [_told(token, logprob) for token, logprob in each.top]


def _offsets(tokens: Iterable[str]) -> list[int]:
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token)
    return offsets
