"""The server of `ftlib ui`: a page for all runs of a folder, that people on this machine look at while they run.

    GET  /                         the page                       GET /plotly.js   what draws its charts
    GET  /api/runs                 each run in a line
    GET  /api/runs/NAME            one run
    GET  /api/beside?a=A&b=B       two
    POST /api/runs/NAME/ask        a command for its driver: {"do": "stop", "trial": "003", "changes": []}
    GET  /runs/NAME/report.html    its report

The page asks every two seconds, and hears 304 where nothing has changed. `live_door` lets people in. A report can be
another's, with scripts of its own: it is shown in a sandbox, where it is of no site and can ask nothing.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, get_args

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ftlib.config.loader import parse_override
from ftlib.errors import FtlibError, InputError
from ftlib.files.hosts import is_loopback
from ftlib.files.json_files import parse_json
from ftlib.files.paths import below
from ftlib.report.live_beside import beside
from ftlib.report.live_door import Door, TooLarge, body_of, refusal
from ftlib.report.live_run import details
from ftlib.report.live_runs import Runs
from ftlib.report.template import digest, script, style, template
from ftlib.run.commands import Command, Deed, ask
from ftlib.run.layout import REPORT

LOOPBACK = "127.0.0.1"
CONNECTIONS = 64
SCRIPTS = ("live_elements.js", "live_views.js", "live.js")
ENDING = 2  # seconds that answers have once the server is ended
REPORT_BYTES = 2**26
MOST_CHANGES = 50  # of a command
OF_REPORT = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
OF_PAGE = (
    "default-src 'none'; script-src 'self' {script}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@contextmanager
def served(
    folder: Path,
    host: str = LOOPBACK,
    port: int = 0,
    api_key: str | None = None,
    http: Any = "auto",
    url: str | None = None,
) -> Iterator[str]:
    """Within, the page is at the URL that this gives; port 0 is any free one. `http` is uvicorn's protocol. `url` is
    where the runs are, if the folder is a copy.

    Without `api_key`, the URL holds a token that lets in whoever opens it. Raises InputError for a folder that is none,
    a port that is taken, and a host that other machines reach without a key.
    """
    import uvicorn

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: 'ftlib ui FOLDER' shows the runs in a folder.")
    if api_key is None and not is_loopback(host):
        raise InputError(f"--host {host} is reachable from other machines: give an --api-key, or bind to {LOOPBACK}.")
    with _listening(host, port) as listener:
        at = listener.getsockname()[1]
        key = api_key or secrets.token_urlsafe(24)
        app = make_app(Runs(folder, url), key, at, is_loopback(host))
        config = uvicorn.Config(app, http=http, ws="none", lifespan="off", log_config=None, access_log=False,
                                server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS,
                                timeout_graceful_shutdown=ENDING)  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="ftlib-ui", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://{_shown(host)}:{at}/" + ("" if api_key else f"?token={key}")
        finally:
            server.should_exit = True
            thread.join(2 * ENDING)


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


def make_app(runs: Runs, key: str, port: int, alone: bool) -> Starlette:
    """The routes over the runs of a folder. `alone`: it listens on loopback."""
    routes = [
        Route("/", _page),
        Route("/plotly.js", _plotly),
        Route("/api/runs", lambda request: _told(request, runs.overview())),
        Route("/api/runs/{name}", lambda request: _told(request, runs.look([_run(runs, request)], details))),
        Route("/api/beside", lambda request: _told(request, runs.look(_two(runs, request), beside))),
        Route("/api/runs/{name}/ask", _asking(runs), methods=["POST"]),
        Route("/runs/{name}/report.html", lambda request: _report(_run(runs, request).path)),
    ]
    door = Middleware(Door, key=key, port=port, alone=alone)
    wrong: dict[Any, Callable[..., Any]] = {
        InputError: lambda request, error: refusal(404, str(error)),
        TooLarge: lambda request, error: refusal(413, str(error)),
        HTTPException: lambda request, error: refusal(error.status_code, f"{error.detail}."),
    }
    return Starlette(routes=routes, middleware=[door], exception_handlers=wrong)


def _run(runs: Runs, request: Request) -> Any:
    return runs.find(request.path_params["name"])


def _two(runs: Runs, request: Request) -> list[Any]:
    return [runs.find(request.query_params.get(side, "")) for side in ("a", "b")]


def _told(request: Request, body: bytes) -> Response:
    """JSON, or 304 for a page that has it already."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"etag": tag})
    return Response(body, media_type="application/json", headers={"etag": tag})


def _page(request: Request) -> HTMLResponse:
    return HTMLResponse(*_html())


@cache
def _html() -> tuple[str, int, dict[str, str]]:
    """The page, its status, and its policy: it may run its own script and Plotly, and ask its own server."""
    told = script(*SCRIPTS)
    html = template("live.html").render(style=style("live.css"), script=Markup(told))
    return html, 200, {"content-security-policy": OF_PAGE.format(script=digest(told))}


def _plotly(request: Request) -> Response:
    from plotly.offline import get_plotlyjs

    return Response(get_plotlyjs(), media_type="text/javascript", headers={"cache-control": "private, max-age=86400"})


def _report(run: Path) -> Response:
    """Raises InputError where there is none, or a link in its place."""
    file = below(run, REPORT, str(run))
    if not file.is_file() or file.stat().st_size > REPORT_BYTES:
        raise InputError(f"{run} has no {REPORT}: 'ftlib report {run}' writes it.")
    return HTMLResponse(file.read_bytes(), headers={"content-security-policy": OF_REPORT})


def _asking(runs: Runs) -> Callable[[Request], Any]:
    async def asking(request: Request) -> Response:
        """Sends a command to a run's driver and waits for its sentence; a refusal is an answer too."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return refusal(415, "The body needs the header 'Content-Type: application/json'.")
        run, body = runs.find(request.path_params["name"]), await body_of(request)
        if runs.url is not None:
            return _heard(False, f"{run.name} is kept at {runs.url}: steer it on the machine where its driver runs.")
        try:
            command = _command(body)
        except (FtlibError, ValueError) as error:
            return _heard(False, str(error))
        try:
            return _heard(True, await run_in_threadpool(ask, run, command))
        except (FtlibError, OSError) as error:
            return _heard(False, str(error))

    return asking


def _heard(worked: bool, sentence: str) -> JSONResponse:
    return JSONResponse({"worked": worked, "sentence": sentence})


def _command(body: bytes) -> Command:
    """The command in a body. Raises InputError and ValueError, which say what is wrong."""
    match parse_json(body):
        case {"do": str(deed), "trial": str(trial), "changes": list(changes), **others} if not others:
            pass
        case _:
            raise InputError("A command has 'do', 'trial' and 'changes', and nothing else.")
    if deed not in get_args(Deed) or deed == "add":
        raise InputError(f"There is no command '{deed[:40]}': stop, resume, clone or boost.")
    if len(changes) > MOST_CHANGES or not all(isinstance(change, str) for change in changes):
        raise InputError(f"Changes are at most {MOST_CHANGES} texts, KEY=VALUE.")
    if changes and deed not in ("clone", "boost"):
        raise InputError(f"'{deed}' takes no changes.")
    return Command(deed, trial, dict(map(parse_override, changes)))  # type: ignore[arg-type]
