"""The page of `ftlib compare`: two answers side by side, without a name, and three keys.

GET  /          the page
POST /api/NAME  a question of the page, a JSON object: begin, next, back, vote; its answer is JSON too
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ftlib.errors import InputError
from ftlib.evaluation.votes import Booth, Shown, check_voter
from ftlib.files.json_files import parse_json
from ftlib.report.door import body_of, refusal
from ftlib.report.loopback import OF_PAGE, behind_a_door, check_json
from ftlib.report.template import digest, script, style, template

Question = dict[str, Any]
Answers = Mapping[str, Callable[[Question], Any]]


def judged(booth: Booth, voter: str | None = None, port: int = 0, http: Any = "auto") -> AbstractContextManager[str]:
    """Within, the page is at the URL that this gives. It asks who votes, unless there is a `voter`. `http` is uvicorn's
    protocol.

    Raises InputError for a name that is none, and for a port that is taken.
    """
    if voter is not None:
        check_voter(voter)
    routes = [Route("/", _page), Route("/api/{name}", _answering(_answers(booth, voter)), methods=["POST"])]
    return behind_a_door("ftlib compare", routes, port=port, http=http)


def _answers(booth: Booth, voter: str | None) -> Answers:
    def vote(asked: Question) -> Question:
        booth.vote(asked.get("voter", ""), str(asked.get("pair")), str(asked.get("side")))
        return _told(booth.next(asked["voter"]))

    return {
        "begin": lambda asked: {"voter": voter},
        "next": lambda asked: _told(booth.next(asked.get("voter", ""))),
        "back": lambda asked: _told(booth.before(asked.get("voter", "")) or booth.next(asked["voter"])),
        "vote": vote,
    }


def _page(request: Request) -> HTMLResponse:
    told, look = script("compare.js"), style("compare.css")
    html = template("compare.html").render(style=look, script=Markup(told))
    policy = OF_PAGE.format(scripts=digest(told), styles=digest(str(look)))
    return HTMLResponse(html, headers={"content-security-policy": policy})


def _answering(answers: Answers) -> Callable[[Request], Any]:
    async def answering(request: Request) -> Response:
        check_json(request)
        name, body = request.path_params["name"], await body_of(request)
        if name not in answers:
            raise HTTPException(404, "There is nothing here")
        try:
            asked = parse_json(body)
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            raise HTTPException(400, "A question is a JSON object")
        try:
            return JSONResponse(await run_in_threadpool(answers[name], asked))
        except InputError as error:
            return refusal(400, str(error))

    return answering


def _told(shown: Shown | None) -> Question:
    """What the page hears: nothing of it says whose an answer is."""
    if shown is None:
        return {"over": True}
    prompt = [{"role": turn["role"], "content": turn["content"]} for turn in shown.pair.prompt]
    told = {"pair": shown.pair.id, "prompt": prompt, "left": shown.left, "right": shown.right}
    return {**told, "judged": shown.judged, "total": shown.total}
