"""What goes between Api and Engine, `Ask` and `Piece`, and what a client hears of it in OpenAI's shape.

`front/openai.py` reads OpenAI's requests and makes an `Ask` of each; `Reply` writes OpenAI's answers from `Piece`s.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ftlib.registry.version import Version

FinishReason = Literal["stop", "length"]
BASE = "@base"  # behind a name or a version: its base alone
LONGEST_ECHO = 64  # characters of what a client wrote that stand in a sentence of ours


@dataclass(frozen=True)
class ReplyTo:
    """The socket that an HTTP side listens at, on its own machine, and the number that it gave a request."""

    socket: str
    number: int


@dataclass(frozen=True)
class Ask:
    """What Api asks of an Engine: prompts as text or token ids, or the messages of a chat, with its tools."""

    version: Version
    prompts: tuple[str | list[int], ...] = ()
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
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
    bare: bool = False  # whether the base of the version answers, without the version's adapter
    client: str = ""  # the name of the key that asks: clients share no beginnings of prompts
    reply_to: ReplyTo | None = None  # where pieces go that need not be the call's own results

    @property
    def writer(self) -> str:
        """Who writes the answer."""
        return writer(self.version, self.bare)

    @property
    def answers(self) -> int:
        """How many are asked for, of all prompts together."""
        return self.n * (len(self.prompts) if self.messages is None else 1)

    def check_count(self, most: int) -> None:
        """Raises Refused for more answers than `most`: before anything is made of the request."""
        if self.answers > most:
            raise Refused(Refusal(f"n: {self.answers} answers at once, but {most} are the most.", "n"))

    def sampling(self, choice: int) -> dict[str, Any]:
        """The fields that say how a token is drawn. Each choice has a seed of its own."""
        names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "logit_bias")
        own = None if self.seed is None else self.seed + choice
        return {**{name: getattr(self, name) for name in names}, "logprobs": self.logprobs, "seed": own}


@dataclass(frozen=True)
class TokenLogprob:
    """One token, its log-probability, and the likeliest in its place.

    The texts of an answer's tokens are together the answer: of those that are one character together, the last has it.
    `raw` are a token's own bytes, where they are others than its text's.
    """

    token: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()
    raw: bytes | None = None


@dataclass(frozen=True)
class Piece:
    """What comes back of one choice: text with what is told of its tokens; in its last piece why it ended.

    `completion_tokens` are the choice's so far, `prompt_tokens` those of all prompts. In seconds since the request came
    to the engine: `queued` until its prompt was read, `waited` until its first token was there. `prompt` is the first
    one as the model read it, template and all but for special tokens: in the first piece, where that was asked for.
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
        prompt = before.prompt if self.prompt is None else self.prompt
        return replace(self, text=before.text + self.text, logprobs=before.logprobs + self.logprobs, prompt=prompt)


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
        return {
            **self._head("chat.completion"),
            "choices": [self._choice(choice) for choice in choices],
            "usage": usage,
        }

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
                "content": [
                    {**_told(likelihood), "top_logprobs": [*map(_told, likelihood.top)]}
                    for likelihood in piece.logprobs
                ]
            }
        return {
            "tokens": [likelihood.token for likelihood in piece.logprobs],
            "token_logprobs": [likelihood.logprob for likelihood in piece.logprobs],
            "top_logprobs": [
                {one.token: one.logprob for one in reversed(likelihood.top)} for likelihood in piece.logprobs
            ],
            "text_offset": _offsets(likelihood.token for likelihood in piece.logprobs),
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


def joined(said: Iterable[Piece | Refusal]) -> list[Piece | Refusal]:
    """Pieces of one request, in their order, by choice; a refusal is the last that counts."""
    found: dict[int, Piece] = {}
    for piece in said:
        if isinstance(piece, Refusal):
            return [*found.values(), piece]
        found[piece.index] = piece.after(found[piece.index]) if piece.index in found else piece
    return [*found.values()]


def writer(version: Version, bare: bool) -> str:
    """The id of a version, or with `bare` of its base: an answer's `system_fingerprint`."""
    return f"{version.id}{BASE}" if bare else version.id


def printable(text: str, most: int = LONGEST_ECHO) -> str:
    """What a client wrote, as it may stand in a sentence or a log: short, and without what moves a terminal's
    cursor."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:most])


def _told(likelihood: TokenLogprob) -> dict[str, Any]:
    raw = likelihood.token.encode() if likelihood.raw is None else likelihood.raw
    return {"token": likelihood.token, "logprob": likelihood.logprob, "bytes": list(raw)}


def _offsets(tokens: Iterable[str]) -> list[int]:
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token)
    return offsets
