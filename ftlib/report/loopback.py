"""A page for one person on this machine: a server on loopback that knows its own page, and nobody without the token.

    GET  /TOKEN/        the page
    POST /TOKEN/NAME    a question of the page, a JSON object, to the function of that name; its answer, JSON too

A web page of another site, which a browser on this machine may show, cannot read the token, and is refused: by the name
it asks for (`Host`, DNS rebinding), by its `Origin`, and by the type of its body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ftlib.errors import FtlibError, InputError
from ftlib.files.json_files import parse_json

ADDRESS = "127.0.0.1"
LARGEST = 65_536  # bytes of a question
SECONDS = 10.0  # in which a request has to arrive

Question = dict[str, Any]
Answers = Mapping[str, Callable[[Question], Any]]

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that gets no answer: its status, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@contextmanager
def served(page: str, answers: Answers, port: int = 0) -> Iterator[str]:
    """Within, the page is at the URL that this gives; port 0 is any free one.

    Raises InputError for a port that is taken. What an answer raises goes to the page: an FtlibError as its sentence.
    """
    token = secrets.token_urlsafe(24)
    try:
        server = ThreadingHTTPServer((ADDRESS, port), _handler(page, answers, token))
    except OSError as error:
        raise InputError(f"--port {port} cannot be used ({error.strerror}): choose another --port.") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{ADDRESS}:{server.server_port}/{token}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def policy(page: str) -> str:
    """The Content-Security-Policy of a page that may run its own script, and ask its own server."""
    allowed = {
        "default-src": "'none'",
        "script-src": _digest(page, "script"),
        "style-src": _digest(page, "style"),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in allowed.items())


def _digest(page: str, tag: str) -> str:
    """The hash by which a policy knows an inline script or style."""
    text = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _handler(page: str, answers: Answers, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """One request, on a thread of its own."""

        timeout = SECONDS
        server_version, sys_version = "ftlib", ""

        def do_GET(self) -> None:
            self._answer(lambda name: _page(name, page), "text/html; charset=utf-8")

        def do_POST(self) -> None:
            self._answer(lambda name: _asked(answers, name, self._question()), "application/json")

        def log_message(self, *_: Any) -> None:
            """Requests hold the token: they are in no log."""

        def _answer(self, find: Callable[[str], bytes], kind: str) -> None:
            try:
                content, status = find(self._name()), HTTPStatus.OK
            except Refused as refused:
                content, status, kind = _error(str(refused)), refused.status, "application/json"
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.send_header("content-security-policy", policy(page))
            self.send_header("x-content-type-options", "nosniff")
            self.send_header("referrer-policy", "no-referrer")
            self.send_header("cache-control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def _name(self) -> str:
            """What is asked for behind the token. Raises Refused for who may not ask."""
            ours = {f"{name}:{self.connection.getsockname()[1]}" for name in (ADDRESS, "localhost")}
            host, origin = self.headers.get("host", "").lower(), self.headers.get("origin")
            if host not in ours or origin not in (None, f"http://{host}"):
                raise Refused(HTTPStatus.FORBIDDEN, "This page is for this machine alone.")
            given, _, name = self.path.removeprefix("/").partition("/")
            if not hmac.compare_digest(given.encode(), token.encode()):
                raise Refused(
                    HTTPStatus.FORBIDDEN, "The token is missing or wrong: open the URL that ftlib has printed."
                )
            return name

        def _question(self) -> Question:
            if self.headers.get_content_type() != "application/json":
                raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A question is JSON.")
            length = self.headers.get("content-length", "")
            if not length.isdecimal() or len(length) > 9 or int(length) > LARGEST:
                raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A question has at most {LARGEST} bytes.")
            try:
                question = parse_json(self.rfile.read(int(length)))
            except (ValueError, TimeoutError):
                question = None
            if not isinstance(question, dict):
                raise Refused(HTTPStatus.BAD_REQUEST, "A question is a JSON object.")
            return question

    return Handler


def _page(name: str, page: str) -> bytes:
    if name:
        raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
    return page.encode()


def _asked(answers: Answers, name: str, question: Question) -> bytes:
    if name not in answers:
        raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
    try:
        return json.dumps(answers[name](question)).encode()
    except FtlibError as error:
        status = HTTPStatus.BAD_REQUEST if isinstance(error, InputError) else HTTPStatus.INTERNAL_SERVER_ERROR
        raise Refused(status, str(error)) from error
    except Exception as error:
        log.error("The page's question '%s' failed.", name, exc_info=error)
        raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "The question failed: ftlib's log says why.") from error


def _error(sentence: str) -> bytes:
    return json.dumps({"error": sentence}).encode()
