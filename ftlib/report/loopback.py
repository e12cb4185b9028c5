"""A server for people on this machine: a page behind a door (`door`), while a command runs."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route

from ftlib.errors import FtlibError, InputError
from ftlib.files.hosts import is_loopback
from ftlib.report.door import Door, TooLarge, refusal

LOOPBACK = "127.0.0.1"
CONNECTIONS = 64
ENDING = 2  # seconds that answers have once the server is ended
OF_PAGE = (
    "default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@contextmanager
def behind_a_door(
    name: str,
    routes: Sequence[Route],
    host: str = LOOPBACK,
    port: int = 0,
    api_key: str | None = None,
    http: Any = "auto",
) -> Iterator[str]:
    """Within, the routes are at the URL that this gives; port 0 is any free one. `name` is the command, for people who
    stand before the door; `http` is uvicorn's protocol.

    Without `api_key`, the URL holds a token that lets in whoever opens it. Raises InputError for a port that is taken,
    and for a host that other machines reach without a key.
    """
    import uvicorn

    if api_key is None and not is_loopback(host):
        raise InputError(f"--host {host} is reachable from other machines: give an --api-key, or bind to {LOOPBACK}.")
    with _listening(host, port) as listener:
        at = listener.getsockname()[1]
        key = api_key or secrets.token_urlsafe(24)
        door = Middleware(Door, name=name, key=key, port=at, alone=is_loopback(host))
        app = Starlette(routes=routes, middleware=[door], exception_handlers=dict(REFUSALS))
        config = uvicorn.Config(app, http=http, ws="none", lifespan="off", log_config=None, access_log=False,
                                server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS,
                                timeout_graceful_shutdown=ENDING)  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="ftlib-page", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://{_shown(host)}:{at}/" + ("" if api_key else f"?token={key}")
        finally:
            server.should_exit = True
            thread.join(2 * ENDING)


def check_json(request: Request) -> None:
    """Raises HTTPException for a body of another type: a form of another site can send those."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "The body needs the header 'Content-Type: application/json'")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise InputError(f"--host {host} --port {port} cannot be used ({error.strerror}): choose others.") from None


def _shown(host: str) -> str:
    """The host as a browser can open it."""
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    return f"[{name}]" if ":" in name else name


# What an answer raises goes to the page as a sentence: most specific first.
REFUSALS: dict[Any, Any] = {
    InputError: lambda request, error: refusal(404, str(error)),
    TooLarge: lambda request, error: refusal(413, str(error)),
    FtlibError: lambda request, error: refusal(500, str(error)),
    HTTPException: lambda request, error: refusal(error.status_code, f"{error.detail}."),
}
