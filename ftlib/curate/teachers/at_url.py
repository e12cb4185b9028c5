"""A teacher behind an OpenAI-compatible URL: one object in a process, so that its bounds hold for all who ask it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import lru_cache
from threading import BoundedSemaphore, Lock
from typing import Any

from ftlib.config.recipe.teacher import TeacherSection
from ftlib.curate.teachers.request import Answered, Missing, Reply, Request
from ftlib.errors import FtlibError, InputError
from ftlib.evaluation.chat_url import ChatUrl, NoReply
from ftlib.files.url_keys import key_for

LARGEST_LIST = 1_000_000  # bytes of the list of models
IN_A_ROW = 8  # requests without an answer: nobody is asked any more


class AtUrl:
    """Answers of a server. Several threads may ask it; no more than `concurrency` requests are under way."""

    lot = 1  # requests that are asked together

    def __init__(self, section: TeacherSection) -> None:
        self._section, self.at_once = section, section.concurrency
        self._key = key_for(section.model, section.api_key_env, "teacher: api_key_env")
        self._gate, self._pace = BoundedSemaphore(section.concurrency), _Pace(section.requests_per_minute)
        self._lock, self._failed = Lock(), 0
        self._chat: ChatUrl | None = None

    @property
    def identity(self) -> str:
        """What its answers depend on, besides the request."""
        return f"{self._section.model.rstrip('/')}#{self._section.name or ''}"

    def ask(self, requests: Sequence[Request]) -> list[Answered]:
        """The answers. Raises FtlibError where the server has not answered for a while."""
        return [self._ask(request) for request in requests]

    def _ask(self, request: Request) -> Answered:
        with self._gate:
            sampling: dict[str, Any] = {"max_tokens": request.max_tokens, "temperature": request.temperature}
            if request.temperature > 0:
                sampling["seed"] = request.seed
            try:
                found = self._asked().complete(list(request.messages), **sampling)
            except NoReply as error:
                return self._missing(str(error))
        self._failed = 0
        read = request.most_read if found.read is None else found.read
        written = request.max_tokens if found.written is None else found.written
        return Reply(found.text, found.reasoning, read, written, found.cut)

    def _missing(self, why: str) -> Missing:
        with self._lock:
            self._failed += 1
            if self._failed >= IN_A_ROW:
                self._chat = None  # a later build looks again
                raise stopped(self._section.model, why)
        return Missing("no_answer", why)

    def _asked(self) -> ChatUrl:
        with self._lock:
            if self._chat is None:
                name = self._section.name or self._only_model()
                self._chat = ChatUrl(
                    self._section.model, name, self._key, silence=self._section.timeout, pace=self._pace.wait
                )
        return self._chat

    def _only_model(self) -> str:
        """The model of a server that has one. Raises InputError for a server with several, or that does not say."""
        names = self._models()
        if len(names) == 1:
            return names[0]
        told = f"has {len(names)} models ({', '.join(names[:6])})" if names else "does not say which models it has"
        raise InputError(f"the teacher at {self._section.model} {told}: name one: {{model: URL, name: NAME}}.")

    def _models(self) -> list[str]:
        import requests

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        url = f"{self._section.model.rstrip('/')}/models"
        try:
            with requests.get(url, auth=_with(headers), timeout=10, allow_redirects=False, stream=True) as answer:
                content = next(answer.iter_content(LARGEST_LIST), b"")
                listed = json.loads(content)["data"] if answer.status_code == 200 else []
                return [str(model["id"])[:200] for model in listed]
        except requests.RequestException as error:
            raise stopped(self._section.model, f"it cannot be reached ({type(error).__name__})") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            return []


def stopped(model: str, why: str) -> FtlibError:
    """What a build says where a teacher does not answer any more."""
    return FtlibError(f"the teacher {model} does not answer: {why}. The answers so far are kept: build again to go on.")


def _with(headers: dict[str, str]) -> Any:
    """With a function of its own, requests does not look for a password in ~/.netrc."""

    def add(request: Any) -> Any:
        request.headers.update(headers)
        return request

    return add


class _Pace:
    """`wait` returns so often in a minute, evenly."""

    def __init__(self, per_minute: float | None) -> None:
        self._pause = 60 / per_minute if per_minute else 0.0
        self._lock, self._next = Lock(), 0.0

    def wait(self) -> None:
        if not self._pause:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._pause
        time.sleep(turn - now)


@lru_cache(maxsize=16)
def _at_url(written: str) -> AtUrl:
    return AtUrl(TeacherSection.model_validate_json(written))


def at_url(section: TeacherSection) -> AtUrl:
    """The teacher of this process for a section."""
    return _at_url(section.model_dump_json(exclude_unset=True))
