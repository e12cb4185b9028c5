"""The server of `ftlib ui`: a page for all runs of a folder, that people on this machine look at while they run.

    GET  /                         the page                       GET /plotly.js   what draws its charts
    GET  /api/runs                 each run in a line, each pipeline with its steps
    GET  /api/runs/NAME            one run
    GET  /api/beside?a=A&b=B       two
    POST /api/runs/NAME/ask        a command for its driver: {"do": "stop", "trial": "003", "changes": []}
    GET  /runs/NAME/report.html    its report
    GET  /pipelines/NAME/STEP/card the card of the version that a step has made

The page asks every two seconds, and hears 304 where nothing has changed. `door` lets people in. A report can be
another's, with scripts of its own: it is shown in a sandbox, where it is of no site and can ask nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, get_args

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ftlib.config.loader import parse_override
from ftlib.errors import FtlibError, InputError
from ftlib.files.json_files import parse_json
from ftlib.files.paths import below
from ftlib.report.door import body_of
from ftlib.report.live_beside import beside
from ftlib.report.live_pipelines import card_of
from ftlib.report.live_run import details
from ftlib.report.live_runs import Runs
from ftlib.report.loopback import LOOPBACK, OF_PAGE, behind_a_door, check_json
from ftlib.report.template import digest, script, style, template
from ftlib.run.commands import Command, Deed, ask
from ftlib.run.layout import REPORT

SCRIPTS = ("live_elements.js", "live_views.js", "live.js")
REPORT_BYTES = 2**26
MOST_CHANGES = 50  # of a command
OF_REPORT = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def served(
    folder: Path,
    host: str = LOOPBACK,
    port: int = 0,
    api_key: str | None = None,
    http: Any = "auto",
    url: str | None = None,
    pipelines: Path | None = None,
) -> AbstractContextManager[str]:
    """Within, the page is at the URL that this gives, as `behind_a_door` has it. `url` is where the runs are, if the
    folder is a copy; `pipelines` as `Runs` has it. Raises InputError for a folder that is none, and as that does."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: 'ftlib ui FOLDER' shows the runs in a folder.")
    return behind_a_door("ftlib ui", routes_of(Runs(folder, url, pipelines)), host, port, api_key, http)


def routes_of(runs: Runs) -> list[Route]:
    """What the page asks for, over the runs of a folder."""
    return [
        Route("/", _page),
        Route("/plotly.js", _plotly),
        Route("/api/runs", lambda request: _told(request, runs.overview())),
        Route("/api/runs/{name}", lambda request: _told(request, runs.look([_run(runs, request)], details))),
        Route("/api/beside", lambda request: _told(request, runs.look(_two(runs, request), beside))),
        Route("/api/runs/{name}/ask", _asking(runs), methods=["POST"]),
        Route("/runs/{name}/report.html", lambda request: _report(_run(runs, request).path)),
        Route("/pipelines/{name}/{step}/card", lambda request: _card(runs, **request.path_params)),
    ]


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
    policy = OF_PAGE.format(scripts=f"'self' {digest(told)}", styles="'unsafe-inline'")  # Plotly's own among them
    return html, 200, {"content-security-policy": policy}


def _plotly(request: Request) -> Response:
    from plotly.offline import get_plotlyjs

    return Response(get_plotlyjs(), media_type="text/javascript", headers={"cache-control": "private, max-age=86400"})


def _report(run: Path) -> Response:
    """Raises InputError where there is none, or a link in its place."""
    file = below(run, REPORT, str(run))
    if not file.is_file() or file.stat().st_size > REPORT_BYTES:
        raise InputError(f"{run} has no {REPORT}: 'ftlib report {run}' writes it.")
    return HTMLResponse(file.read_bytes(), headers={"content-security-policy": OF_REPORT})


def _card(runs: Runs, name: str, step: str) -> Response:
    return PlainTextResponse(card_of(runs.pipelines, name, step))


def _asking(runs: Runs) -> Callable[[Request], Any]:
    async def asking(request: Request) -> Response:
        """Sends a command to a run's driver and waits for its sentence; a refusal is an answer too."""
        check_json(request)
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
