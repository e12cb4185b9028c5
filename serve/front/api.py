"""What an endpoint answers, whoever asks over HTTP: reads a request, finds the version, passes on its engine's pieces.
Routes by the `model` field; knows no tensors.

Every answer that is not one has OpenAI's error shape, so that a client raises its own exception and shows our
sentence. What broke inside goes to the log, never into an answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from starlette.requests import ClientDisconnect

from ftlib.registry.backend import VARIABLE
from ftlib.registry.keys import Key
from ftlib.registry.registry import trust_versions
from ftlib.registry.version import Version
from serve.engine.classifier import MAX_TEXTS, Label
from serve.engine.messages import BASE, Ask, Piece, Refusal, Refused, Reply, Tally, printable, writer
from serve.engine.options import Endpoint
from serve.engine.templates import LATE
from serve.front.body import parse
from serve.front.books import Books
from serve.front.catalog import Catalog, Entry, labels_of
from serve.front.engines import Engines
from serve.front.guard import Guard
from serve.front.lines import Call, Lines, call
from serve.front.metrics import Metrics, Visit
from serve.front.openai import ChatRequest, ClassifyRequest, CompletionRequest, GenerationRequest, Shape

BROKEN = Refusal("The server failed to answer: its log says why.", None, "internal_error", 500, "server_error")
BUSY = Refusal(
    "Too many requests are waiting: try again in a moment.", None, "rate_limit_exceeded", 429, "rate_limit_error", 1
)
AWAY = Refusal("The engine died and is starting anew: try again.", None, "engine_unavailable", 503, "server_error", 2)
GONE = (RayActorError, DeploymentUnavailableError)  # how a replica's death is told
HANG_UPS = (asyncio.CancelledError, GeneratorExit, ClientDisconnect, RequestCancelledError, TaskCancelledError)
HUNG_UP = Refusal("The client hung up.", None, "client_closed_request", 499)  # as nginx logs it; nobody hears it
LEAVING = Refusal("The endpoint is shutting down: try again.", None, "shutting_down", 503, "server_error", 5)
SLOW = Refusal("The body did not arrive in time: send it faster.", None, "body_too_slow", 408, "timeout_error")
GRACE = 5.0  # seconds in which an engine says itself that a request's time is over
LOOKUPS = 4  # versions that are looked up at once
MAX_ID = 128  # characters of an id that a client makes up
POLL = 1.0  # seconds between two looks at the registry

log = logging.getLogger("ray.serve")


class Api:
    """The deployment behind the routes. `engines` are the handles that it was deployed with, by name."""

    def __init__(self, endpoint: Endpoint, home: str, registry: str, engines: dict[str, Any]) -> None:
        os.environ["FTLIB_HOME"] = home  # of whoever started the endpoint, wherever this replica runs
        os.environ[VARIABLE] = registry  # nothing: in that home
        trust_versions(endpoint.trust)  # each carries that to its engine
        self._limit, self._deadline = endpoint.max_body, endpoint.engine.deadline
        self._body_seconds = min(endpoint.body_seconds, endpoint.engine.deadline)
        self._guard = Guard(endpoint.api_key, Path(endpoint.keys) if endpoint.keys else None, endpoint.hosts)
        self._engines = Engines(endpoint, engines)
        self._catalog = Catalog(endpoint.names, self._engines.ready, self._engines.reach, endpoint.base)
        self._catalog.refresh()
        self._lines = Lines()
        self._metrics = Metrics()
        self._books = Books(endpoint.logs)
        self._following: asyncio.Task[None] | None = None
        self._lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")
        self._leaving = False

    # --- what needs no engine -----------------------------------------------------------------------------------

    def cards(self, request: Request) -> list[dict[str, Any]]:
        """The names that the key opens."""
        key = self._admit(request, counted=False)
        served = [*self._catalog.entries(), *self._catalog.bases()]
        return [_card(entry) for entry in served if self._guard.allow(key, entry.name)]

    async def card(self, name: str, request: Request) -> dict[str, Any]:
        key = self._admit(request, counted=False)
        self._guard.check(key, name)
        found = asyncio.get_running_loop().run_in_executor(self._lookups, self._catalog.entry, name, key.allows)
        return _card(await asyncio.wait_for(found, self._deadline))

    def live(self, request: Request) -> dict[str, Any]:
        """The last minute's rates, for the page: of what the key opens."""
        key = self._admit(request, counted=False)
        return self._metrics.live(key.allows)

    def metrics(self, request: Request) -> bytes:
        """For Prometheus, which sends the key as its `authorization`: what the key opens."""
        key = self._admit(request, counted=False)
        return self._metrics.text(key.allows if key.adapters else None)

    def health(self) -> Refusal | None:
        """Why no new request should come here."""
        return LEAVING if self._leaving else None

    def leave(self) -> int:
        """Takes nothing new from now on. Returns how many requests are not answered yet."""
        self._leaving = True
        return self._metrics.open

    def hear(self, engine: str, replica: str, stats: dict[str, float]) -> None:
        """What an engine's replica says of itself."""
        self._metrics.hear(engine, replica, stats)

    async def check_health(self) -> None:
        """Serve calls it from time to time; the first call starts to follow the registry."""
        if self._following is None or self._following.done():
            self._following = asyncio.get_running_loop().create_task(self._follow())

    # --- answers ------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        return await self._visit(request, ChatRequest, self._generate)

    async def complete(self, request: Request) -> Response:
        return await self._visit(request, CompletionRequest, self._generate)

    async def classify(self, request: Request) -> Response:
        return await self._visit(request, ClassifyRequest, self._classify)

    async def _visit(
        self, request: Request, shape: type[Shape], answer: Callable[[Visit, Shape, Version], Awaitable[Response]]
    ) -> Response:
        """A request from its key to its place in the books. A stream is booked when it ends."""
        visit = Visit(request.url.path)
        visit.id = request.headers.get("x-request-id", visit.id)[:MAX_ID]  # Serve gives each one, and answers with it
        self._metrics.begin()
        try:
            asked, version = await self._read(visit, shape, request)
            response = await answer(visit, asked, version)
        except Exception as error:
            response = refused(self._note(visit, error))
        except BaseException as error:
            self._note(visit, error)
            self._close(visit)
            raise
        if not isinstance(response, StreamingResponse):
            self._close(visit)
        return response

    async def _read(self, visit: Visit, shape: type[Shape], request: Request) -> tuple[Shape, Version]:
        """The request and the version that answers it. The key is checked before a byte of the body is read."""
        if self._leaving:
            raise Refused(LEAVING)
        key = self._admit(request)
        visit.key = key.name
        self._guard.check_type(request.headers.get("content-type", ""))
        asked = parse(shape, await self._body(request))
        visit.model = asked.model
        self._guard.check(key, asked.model)
        version = await self._routed(asked.model, key, self._left(visit, asked.timeout))
        visit.version = writer(version, _bare(asked.model))
        return asked, version

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._limit:
                        message = f"The body is larger than {self._limit} bytes: shorten it."
                        raise Refused(Refusal(message, None, "body_too_large", 413))
        except TimeoutError:
            raise Refused(SLOW) from None
        return bytes(body)

    async def _routed(self, name: str, key: Key, seconds: float) -> Version:
        """The version that a name means. One that is asked for by its number may have to be looked up, and its engine
        started: what is meant now never waits for that."""
        if "@" not in name.removesuffix(BASE):
            return self._catalog.route(name, key.allows)
        until = time.monotonic() + seconds
        loop = asyncio.get_running_loop()
        found = loop.run_in_executor(self._lookups, self._catalog.route, name, key.allows)
        version = await asyncio.wait_for(found, seconds)
        while not self._engines.answers(version):
            if time.monotonic() > until:
                message = f"{version.id} has no engine yet, which is starting, or waits for a place: try again."
                raise Refused(Refusal(message, "model", "engine_unavailable", 503, "server_error", 5))
            await asyncio.sleep(0.1)
            await loop.run_in_executor(self._lookups, self._engines.reach, version)
        return version

    def _left(self, visit: Visit, asked: float | None = None) -> float:
        """Seconds until a request's time is over, which began with its headers."""
        left = visit.began + min(asked or math.inf, self._deadline) - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _admit(self, request: Request, counted: bool = True) -> Key:
        peer = request.client.host if request.client else ""
        key = self._guard.admit(request.headers.get("authorization", ""), peer, counted)
        self._guard.check_site(request.headers.get("host", ""), request.headers.get("origin"))
        return key

    async def _generate(self, visit: Visit, asked: GenerationRequest, version: Version) -> Response:
        if labels_of(version):
            raise Refused(Refusal(f"model: {version.id} sorts texts and writes none: use /v1/classify.", "model"))
        ask, sampled = asked.ask(version), self._books.wants_sample()
        ask = replace(ask, seconds=self._left(visit, ask.seconds), bare=_bare(asked.model), client=visit.key)
        visit.stream, hidden = ask.stream, sampled and ask.logprobs is None
        if sampled:  # what the model read belongs to it, and how sure it was
            ask = replace(ask, logprobs=ask.logprobs or 0, tells_prompt=True)
            visit.turns = ask.messages if asked.chat and not ask.tools else None
        first, rest = await self._begin(ask)
        reply = Reply(asked.chat, asked.model, ask.writer)
        answering = self._heard(visit, sampled, first, rest)
        if ask.stream:
            events = self._events(visit, reply, answering, asked.wants_usage, hidden)
            return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        tally = Tally()
        async for piece in answering:
            tally.add(replace(piece, logprobs=()) if hidden else piece)
        return JSONResponse(reply.whole(tally.in_order, tally.usage))

    async def _classify(self, visit: Visit, asked: ClassifyRequest, version: Version) -> Response:
        if not labels_of(version):
            raise Refused(Refusal(f"model: {version.id} writes texts and sorts none: use /v1/completions.", "model"))
        if not 0 < len(asked.texts) <= MAX_TEXTS:
            raise Refused(Refusal(f"input: give 1 to {MAX_TEXTS} texts, not {len(asked.texts)}.", "input"))
        async with asyncio.timeout(self._left(visit, asked.timeout)):
            labels: list[Label] | Refusal = await self._engines.handle(version).classify.remote(asked.texts)
        if isinstance(labels, Refusal):
            raise Refused(labels)
        visit.prompt_tokens = sum(label.tokens for label in labels)
        data = [{"index": n, "label": label.label, "scores": label.scores} for n, label in enumerate(labels)]
        usage = {"prompt_tokens": visit.prompt_tokens, "total_tokens": visit.prompt_tokens}
        head = {"object": "list", "model": asked.model, "system_fingerprint": version.id}
        return JSONResponse({**head, "data": data, "usage": usage})

    async def _begin(self, ask: Ask) -> tuple[Piece, Call]:
        """The first piece, and what comes after it. Waits for it, so that a refusal still has its own status; and asks
        another replica when the first one died, since nobody has heard anything yet."""
        for attempt in (1, 2):
            pieces = await call(self._lines, self._engines.stream(ask.version), ask)
            try:
                async with asyncio.timeout((ask.seconds or self._deadline) + GRACE):
                    first = await anext(pieces)
            except GONE:
                pieces.cancel()
                if attempt == 2:
                    raise
                continue
            except BaseException:
                pieces.cancel()
                raise
            if isinstance(first, Refusal):
                pieces.cancel()
                raise Refused(first)
            return first, pieces
        raise AssertionError

    async def _heard(self, visit: Visit, sampled: bool, first: Piece, rest: Call) -> AsyncIterator[Piece]:
        """The pieces, as they come. The engine is told when nobody wants the rest, and the books are kept."""
        tally = Tally()
        try:
            tally.add(first)
            yield first
            async for piece in rest:
                if isinstance(piece, Refusal):
                    raise Refused(piece)
                tally.add(piece)
                yield piece
        finally:
            rest.cancel()
            visit.take(tally)
            if sampled:
                self._books.sample(visit, tally)

    async def _events(
        self, visit: Visit, reply: Reply, answering: AsyncIterator[Piece], with_usage: bool, hidden: bool
    ) -> AsyncIterator[str]:
        """The answer as server-sent events. A failure on the way is an event too: the status has left long ago."""
        tally = Tally()
        try:
            async for piece in answering:
                if reply.chat and piece.index not in tally.choices:
                    yield _event(reply.opening(piece.index))
                tally.add(replace(piece, text="", logprobs=()))  # for the counts alone
                yield _event(reply.chunk(replace(piece, logprobs=()) if hidden else piece))
            if with_usage:
                yield _event(reply.usage_chunk(tally.usage))
            yield "data: [DONE]\n\n"
        except Exception as error:
            yield _event(self._note(visit, error).body())
        except BaseException as error:
            self._note(visit, error)
            raise
        finally:
            await answering.aclose()  # type: ignore[attr-defined]
            self._close(visit)

    # --- books --------------------------------------------------------------------------------------------------

    def _note(self, visit: Visit, error: BaseException) -> Refusal:
        """What the client is told of an error, noted in the visit. What broke inside is logged here."""
        if isinstance(error, Refused):
            refusal = error.refusal
        elif isinstance(error, BackPressureError):
            refusal = BUSY
        elif isinstance(error, TimeoutError):
            refusal = LATE
        elif isinstance(error, HANG_UPS):
            refusal = HUNG_UP
        else:
            refusal = AWAY if isinstance(error, GONE) else BROKEN
            log.error("%s of %s failed.", visit.path, visit.version or printable(visit.model), exc_info=error)
        visit.status, visit.code = refusal.status, refusal.code
        return refusal

    def _close(self, visit: Visit) -> None:
        visit.total = time.monotonic() - visit.began
        self._metrics.end(visit)
        self._books.access(visit)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            try:
                await asyncio.to_thread(self._catalog.refresh)
                self._engines.meant = self._catalog.engines()
            except Exception as error:  # storage that is away for a while: what is served goes on
                log.error("The registry could not be read.", exc_info=error)


def refused(refusal: Refusal) -> JSONResponse:
    """A refusal as an answer."""
    headers = {"retry-after": str(refusal.retry_after)} if refusal.retry_after else None
    return JSONResponse(refusal.body(), status_code=refusal.status, headers=headers)


def _bare(name: str) -> bool:
    """Whether the base alone is asked. A name of the registry has no @ in it."""
    return name.endswith(BASE)


def _card(entry: Entry) -> dict[str, Any]:
    """One entry of the list of models. `root` is the version that the name means."""
    told = {"created": entry.created, "owned_by": "ftlib", "root": writer(entry.version, entry.bare)}
    if entry.canary is not None:
        told |= {"canary": entry.canary.id, "canary_share": entry.share}
    return {"id": entry.name, "object": "model", **told}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
