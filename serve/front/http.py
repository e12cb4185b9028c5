"""The routes, and what they answer when there is no such route."""

from __future__ import annotations

import base64
import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from ray import serve
from starlette.exceptions import HTTPException

from serve.engine.messages import Refusal, Refused, printable
from serve.front.api import BROKEN, refused
from serve.front.openai import ChatRequest, ClassifyRequest, CompletionRequest
from serve.front.published import openapi, route

PAGE = Path(__file__).with_name("page.html")

log = logging.getLogger("ray.serve")
router = APIRouter()


def this_api() -> Any:
    """The Api of the replica that the request came to. A test puts another in its place."""
    return serve.get_replica_context().servable_object


Current = Annotated[Any, Depends(this_api)]


@router.get("/", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    """What is served, how busy it is, and a box to try it. The page is open; what it shows asks for the key."""
    return _page()


@router.get("/health", openapi_extra=route("Health"))
async def health(api: Current) -> Response:
    """Open to everyone: a load balancer has no key."""
    leaving = api.health()
    return refused(leaving) if leaving else JSONResponse({"status": "ok"})


@router.get("/metrics", response_class=PlainTextResponse, openapi_extra=route())
async def metrics(request: Request, api: Current) -> Response:
    """Prometheus' text."""
    return Response(api.metrics(request), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/live", openapi_extra=route("Live"))
async def live(request: Request, api: Current) -> JSONResponse:
    """The last minute's rates, per version."""
    return JSONResponse(api.live(request))


@router.get("/v1/models", openapi_extra=route("Models"))
async def models(request: Request, api: Current) -> JSONResponse:
    """The names that are served."""
    return JSONResponse({"object": "list", "data": api.cards(request)})


@router.get("/v1/models/{name}", openapi_extra=route("Model"))
async def model(name: str, request: Request, api: Current) -> JSONResponse:
    """One of them."""
    return JSONResponse(await api.card(name, request))


@router.post("/v1/chat/completions", openapi_extra=route("Chat", ChatRequest, streams=True))
async def chat_completions(request: Request, api: Current) -> Response:
    """The next message of a chat."""
    answer: Response = await api.chat(request)
    return answer


@router.post("/v1/completions", openapi_extra=route("Completion", CompletionRequest, streams=True))
async def completions(request: Request, api: Current) -> Response:
    """What follows a text."""
    answer: Response = await api.complete(request)
    return answer


@router.post("/v1/classify", openapi_extra=route("Labels", ClassifyRequest))
async def classify(request: Request, api: Current) -> Response:
    """Which label each text has."""
    answer: Response = await api.classify(request)
    return answer


def make_app() -> FastAPI:
    """The routes and what they answer when something is wrong. Serve calls it inside the replica.

    A FastAPI that `serve.ingress` gets ready-made is copied by value before this module is complete.
    """
    app = FastAPI(title="ftlib", docs_url=None, redoc_url=None)
    app.include_router(router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _not_here)
    app.add_exception_handler(Exception, _broken)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app


@cache
def _page() -> HTMLResponse:
    """The page may run the script that is in it and ask this endpoint, and nothing else."""
    html = PAGE.read_text(encoding="utf-8")
    policy = {
        "default-src": "'none'",
        "script-src": _digest(html, "script"),
        "style-src": _digest(html, "style"),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    return HTMLResponse(html, headers=headers)


def _digest(html: str, tag: str) -> str:
    """The hash by which a Content-Security-Policy knows an inline script or style."""
    text = html.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def _refused(_: Request, error: Any) -> JSONResponse:
    return refused(error.refusal)


async def _not_here(request: Request, error: Any) -> JSONResponse:
    path = printable(request.url.path)
    refusal = Refusal(f"{request.method} {path}: {error.detail}.", status=error.status_code)
    answer = refused(refusal)
    answer.headers.update(error.headers or {})
    return answer


async def _broken(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed.", request.method, printable(request.url.path), exc_info=error)
    return refused(BROKEN)
