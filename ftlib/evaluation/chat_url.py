"""One reply of a model behind an OpenAI-compatible URL, asked for again where that can help."""

from __future__ import annotations

import json
import time
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


class ChatUrl:
    """`chat(messages)` is what the model replies. Several threads may call it.

    429, 5xx and a lost connection are tried again, four times in all. After 8 failures without a success nobody is
    asked any more: a server that is down costs seconds.
    """

    def __init__(self, url: str, model: str, key: str | None, max_tokens: int | None = None) -> None:
        self.url, self.model, self.key = f"{url.rstrip('/')}/chat/completions", model, key
        self.limit = {} if max_tokens is None else {"max_tokens": max_tokens}
        self.host = urlsplit(url).hostname or "the URL"
        self._lock, self._failures, self._reason, self._is_there = Lock(), 0, "", False

    def __call__(self, messages: Turns) -> str:
        """Raises NoReply."""
        if self._failures >= HOPELESS and not self._is_there:
            raise NoReply(self._reason)
        try:
            reply = self._patiently(messages)
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

    def _patiently(self, messages: Turns) -> str:
        for number in range(TRIES):
            try:
                return self._once(messages)
            except _Passing as error:
                if number == TRIES - 1:
                    raise
                time.sleep(min(max(PAUSE * 2**number, error.pause), LONGEST_PAUSE))
        raise AssertionError  # the last try returns or raises

    def _once(self, messages: Turns) -> str:
        """Redirects are not followed: where one leads, the key was not meant for."""
        import requests

        body = {"model": self.model, "messages": messages, "temperature": 0, **self.limit}
        try:
            with requests.post(
                self.url,
                json=body,
                auth=self._authorize,
                timeout=(CONNECT, READ),
                allow_redirects=False,
                stream=True,
            ) as answer:
                if answer.status_code != 200:
                    raise self._refusal(answer)
                return _content(_read(answer))
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


def _read(answer: Any) -> bytes:
    content, deadline = b"", time.monotonic() + WHOLE
    for part in answer.iter_content(65536):
        content += part
        if len(content) > LARGEST or time.monotonic() > deadline:
            raise NoReply("a reply is larger than 1 MB or takes longer than 5 minutes")
    return content


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        content = None
    if not isinstance(content, str):
        raise NoReply("a reply is no chat completion")
    return content
