"""Who may see a page of this machine: a browser that has shown its key once, and no page of another site.

    GET /?token=KEY     leads to / with a cookie, so that the key stands in no history
    POST /door          the same from a form, for a key that a person types
    GET /               without the cookie: that form

A cookie travels by itself. So what a page of another site can make a browser send is refused before all else: a request
under a name that its owner points to this machine (DNS rebinding), and a POST that does not come from this page.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftlib.files.hosts import host_of, is_loopback
from ftlib.report.template import style, template
from ftlib.run.plain_text import one_line

LARGEST = 16_384  # bytes of a body
SECONDS = 10.0  # in which it has to arrive
PAUSE = 0.5  # seconds before a wrong key is answered
SAFE = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
OF_FORM = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class TooLarge(Exception):
    """A body that is larger, or slower, than any that the page sends."""


class Door:
    """Middleware before all routes. `name` is the command; `alone`: the server is bound to loopback, so it has this
    machine's names only."""

    def __init__(self, app: ASGIApp, name: str, key: str, port: int, alone: bool) -> None:
        self._app, self._name, self._key, self._alone = app, name, key, alone
        self._cookie, self._session = f"ftlib-{port}", secrets.token_urlsafe(24)  # one cookie a port: they share all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        answer: ASGIApp = self._turned_away(request) or await self._at_the_door(request) or self._app
        await answer(scope, receive, _careful(send))

    def _turned_away(self, request: Request) -> Response | None:
        """The answer to what may come from another site."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self._alone and not is_loopback(host_of(host)):
            return refusal(
                403, f"{self._name} does not answer as '{one_line(host)[:80]}': open the URL that it printed."
            )
        if request.method in SAFE or (origin or "").partition("://")[2].lower() == host.lower() != "":
            return None
        return refusal(403, f"A page of '{one_line(origin or 'nowhere')[:80]}' may not ask {self._name}.")

    async def _at_the_door(self, request: Request) -> Response | None:
        """The answer to who has no cookie yet, or comes with a key; None for who is in."""
        at = (request.method, request.url.path)
        if at == ("GET", "/") and "token" in request.query_params:
            return await self._entering(request.query_params["token"])
        if at == ("POST", "/door"):
            return await self._entering(await _typed(request))
        if _same(request.cookies.get(self._cookie, ""), self._session):
            return None
        return self._form("") if at == ("GET", "/") else refusal(401, f"Open the URL that {self._name} printed.")

    async def _entering(self, key: str) -> Response:
        if not _same(key, self._key):
            await asyncio.sleep(PAUSE)
            return self._form("That is not the key.")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
        return answer

    def _form(self, why: str) -> HTMLResponse:
        html = template("door.html").render(style=style("live.css"), name=self._name, why=why)
        return HTMLResponse(html, 401, {"content-security-policy": OF_FORM})


async def body_of(request: Request) -> bytes:
    """The body. Raises TooLarge for one of more than `LARGEST` bytes, or that takes longer than `SECONDS`."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > LARGEST:
                    raise TooLarge(f"The body is larger than {LARGEST:,} bytes.")
                parts.append(part)
    except TimeoutError:
        raise TooLarge(f"The body did not arrive within {SECONDS:g} s.") from None
    return b"".join(parts)


def refusal(status: int, why: str) -> JSONResponse:
    """A sentence for the page, or for a person."""
    return JSONResponse({"error": why}, status)


async def _typed(request: Request) -> str:
    """The key in a form; empty where there is none."""
    try:
        told = parse_qs((await body_of(request)).decode("utf-8", "replace"), max_num_fields=4)
    except (TooLarge, ValueError):
        return ""
    return told.get("key", [""])[0]


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), known.encode())


def _careful(send: Send) -> Send:
    """Every answer has these headers, unless it says otherwise itself."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Any = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent
