"""What a client may ask, in OpenAI's shapes: https://platform.openai.com/docs/api-reference. `top_k`, `min_p` and
`timeout` are ours, under the names that vLLM and others gave them.

`body.py` reads the JSON, `chat.py` has the turns of a chat.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, PlainValidator, field_validator, model_validator

from ftlib.registry.version import Version
from serve.engine.messages import Ask
from serve.front.body import Body, fault
from serve.front.chat import MAX_MESSAGES, Message, Tools

Shape = TypeVar("Shape", bound="Request")
MAX_CHOICES = 16  # answers to one prompt
MAX_PROMPTS = 2048  # and texts: the engine takes fewer, and says how many
MAX_BIASES = 1024  # tokens in one logit_bias
MAX_STOPS, MAX_STOP = 16, 1024  # stop strings, and their characters: each is looked for after each token

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


# --- prompts ------------------------------------------------------------------------------------------------------


def _prompt(value: Any) -> Any:
    """A text, token ids, or a list of either: looked at once, where pydantic would try each of the four in turn."""
    if isinstance(value, str) or _is_ids(value):
        return value
    if not isinstance(value, list):
        raise fault("", "Give a text, a list of token ids, or a list of texts or of such lists")
    if len(value) > MAX_PROMPTS:
        raise fault("", f"Give at most {MAX_PROMPTS} prompts, not {len(value)}")
    first = type(value[0])
    for number, prompt in enumerate(value):
        if type(prompt) is not first or not (first in (str, int) or _is_ids(prompt)):
            raise fault(str(number), "Give texts alone, or token ids alone, or lists of them alone")
    return value


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _texts(value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or len(found) > MAX_PROMPTS:
        raise fault("", f"Give a text, or a list of at most {MAX_PROMPTS} texts")
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise fault(str(number), "Give a text")
    return found


Prompts = str | list[int] | list[str] | list[list[int]]
Prompt = Annotated[Any, PlainValidator(_prompt, json_schema_input_type=Prompts)]
Texts = Annotated[list[str], PlainValidator(_texts, json_schema_input_type=str | list[str])]


# --- requests -----------------------------------------------------------------------------------------------------


class StreamOptions(Body):
    """`include_usage` adds a last chunk with the token counts."""

    HARMLESS = ("include_obfuscation",)
    NOT_YET: ClassVar = {"continuous_usage_stats": (False,)}
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
            raise fault("", f"Give at most {MAX_BIASES} tokens, not {len(value)}")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _few(cls, value: Any) -> Any:
        given = [value] if isinstance(value, str) else value or []
        if isinstance(given, list):
            texts = [text for text in given[: MAX_STOPS + 1] if isinstance(text, str)]
            if len(given) > MAX_STOPS or any(len(text) > MAX_STOP for text in texts):
                raise fault("", f"Give at most {MAX_STOPS} strings of at most {MAX_STOP} characters")
            if "" in texts:
                raise fault("", "An empty text stops nothing: leave it out")
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
            raise fault("", f"Give at most {MAX_MESSAGES}, not {len(value)}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> ChatRequest:
        """What contradicts itself would be half obeyed."""
        if self.top_logprobs and not self.logprobs:
            raise fault("top_logprobs", "It needs 'logprobs': true")
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise fault("max_completion_tokens", "It is the newer name of 'max_tokens': give one of them")
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
