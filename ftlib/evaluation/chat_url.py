"""One reply of a model behind an OpenAI-compatible URL, asked for again where that can help."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from ftlib.evaluation.task import Answer

TRIES = 4
PAUSE = 1.0  # seconds before the second try; each further one waits twice as long
LONGEST_PAUSE = 30.0  # seconds, also where the server asks for more
CONNECT, READ, WHOLE = 10.0, 60.0, 300.0  # seconds for the connection, between two parts of a reply, for all of it
LARGEST = 1_000_000  # bytes of a reply
HOPELESS = 8  # requests that fail before one succeeds: nobody is asked any more

Turns = list[dict[str, str]]


class NoReply(Exception):
    """There is no reply that can be used. The message is a part of a sentence, and holds no key."""


class _Passing(NoReply):
    """What may be over in a second. `pause`: the seconds that the server asks for."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True)
class Completion:
    """A reply. `reasoning` is what the model thought, where the server tells it apart. `read` and `written` are tokens,
    None where the server does not say them. `cut`: it ends because it may not be longer."""

    text: str
    reasoning: str = ""
    read: int | None = None
    written: int | None = None
    cut: bool = False


class ChatUrl:
    """`chat(messages)` is what the model replies. Several threads may call it.

    429, 5xx and a lost connection are tried again, four times in all. After 8 failures without a success nobody is
    asked any more: a server that is down costs seconds. `silence`: the seconds that may pass between two parts of a
    reply. `pace` is called before each try.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None,
        max_tokens: int | None = None,
        silence: float = READ,
        pace: Callable[[], None] = lambda: None,
    ) -> None:
        self.url, self.model, self.key = f"{url.rstrip('/')}/chat/completions", model, key
        self.limit = {} if max_tokens is None else {"max_tokens": max_tokens}
        self.silence, self.pace = silence, pace
        self.host = urlsplit(url).hostname or "the URL"
        self._lock, self._failures, self._reason, self._is_there = Lock(), 0, "", False

    def __call__(self, messages: Turns) -> str:
        """Raises NoReply."""
        return self.complete(messages, temperature=0, **self.limit).text

    def complete(self, messages: Turns, **sampling: Any) -> Completion:
        """The reply, with what the server says of it. `sampling`: further keys of the request. Raises NoReply."""
        if self._failures >= HOPELESS and not self._is_there:
            raise NoReply(self._reason)
        try:
            reply = self._patiently(messages, sampling)
        except NoReply as error:
            with self._lock:
                self._failures, self._reason = self._failures + 1, str(error)
            raise
        self._is_there = True
        return reply

    def answer(self, messages: Turns) -> Answer:
        """The reply with the seconds that it took. Raises NoReply."""
        began = time.perf_counter()
        text = self(messages)
        return Answer(text, seconds=time.perf_counter() - began)

    def _patiently(self, messages: Turns, sampling: dict[str, Any]) -> Completion:
        for number in range(TRIES):
            try:
                self.pace()
                return self._once({"model": self.model, "messages": messages, **sampling})
            except _Passing as error:
                if number == TRIES - 1:
                    raise
                time.sleep(min(max(PAUSE * 2**number, error.pause), LONGEST_PAUSE))
        raise AssertionError  # the last try returns or raises

    def _once(self, body: dict[str, Any]) -> Completion:
        """Redirects are not followed: where one leads, the key was not meant for."""
        import requests

        try:
            with requests.post(
                self.url,
                json=body,
                auth=self._authorize,
                timeout=(CONNECT, self.silence),
                allow_redirects=False,
                stream=True,
            ) as answer:
                if answer.status_code != 200:
                    raise self._refusal(answer)
                return _completion(_read(answer, max(WHOLE, self.silence)))
        except requests.RequestException as error:  # its text holds the URL, which may hold a password
            raise _Passing(f"{self.host} does not answer ({type(error).__name__})") from None

    def _authorize(self, request: Any) -> Any:
        """With a function of its own, requests does not look for a password in ~/.netrc."""
        if self.key is not None:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request

    def _refusal(self, answer: Any) -> NoReply:
        reason = f"{self.host} answers {answer.status_code}"
        if answer.status_code != 429 and answer.status_code < 500:
            return NoReply(reason)
        seconds = str(answer.headers.get("retry-after", ""))
        return _Passing(reason, float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0)


def _read(answer: Any, most: float) -> bytes:
    content, deadline = b"", time.monotonic() + most
    for part in answer.iter_content(65536):
        content += part
        if len(content) > LARGEST or time.monotonic() > deadline:
            raise NoReply("a reply is larger than 1 MB or takes longer than 5 minutes")
    return content


def _completion(body: bytes) -> Completion:
    try:
        whole = json.loads(body)
        choice = whole["choices"][0]
        message = choice["message"]
        content = message["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        content = None
    if not isinstance(content, str):
        raise NoReply("a reply is no chat completion")
    thought = message.get("reasoning_content") or message.get("reasoning")
    read, written = (_tokens(whole.get("usage"), name) for name in ("prompt_tokens", "completion_tokens"))
    thought = thought if isinstance(thought, str) else ""
    return Completion(content, thought, read, written, choice.get("finish_reason") == "length")


def _tokens(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int and found >= 0 else None
