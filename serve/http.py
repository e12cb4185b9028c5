"""The routes, what they publish of themselves (OpenAPI), and what they answer when there is no such route."""

from __future__ import annotations

import base64
import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic.json_schema import models_json_schema
from ray import serve
from starlette.exceptions import HTTPException

from serve.api import BROKEN, refused
from serve.protocol import ChatRequest, ClassifyRequest, CompletionRequest, Refusal, Refused
from serve.protocol import Request as Asked

PAGE = Path(__file__).with_name("page.html")
SHAPES: tuple[type[Asked], ...] = (ChatRequest, CompletionRequest, ClassifyRequest)
STATUSES = {
    400: "The request is wrong: `param` says where.",
    401: "The key is missing or wrong.",
    403: "The key does not open this model.",
    404: "The model is not served.",
    408: "The deadline passed.",
    413: "The body is too large.",
    422: "The model is there and cannot answer.",
    429: "Too many requests: `Retry-After` says when to try again.",
    503: "An engine is starting anew.",
}
REFUSAL = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

log = logging.getLogger("ray.serve")
router = APIRouter()


def this_api() -> Any:
    """The Api of the replica that the request came to. A test puts another in its place."""
    return serve.get_replica_context().servable_object


Current = Annotated[Any, Depends(this_api)]


def _published(shape: type[Asked] | None = None) -> dict[str, Any]:
    """A route's part of the OpenAPI: bodies are parsed by us, after the key, so FastAPI does not know them."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    told: dict[str, Any] = {
        "responses": {str(status): {"description": text, "content": content} for status, text in STATUSES.items()},
        "security": [{"key": []}, {}],
    }
    if shape is not None:
        schema = {"$ref": f"#/components/schemas/{shape.__name__}"}
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return told


@router.get("/", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    """What is served, how busy it is, and a box to try it. The page is open; what it shows asks for the key."""
    return _page()


@router.get("/health")
async def health() -> dict[str, str]:
    """Open to everyone: a load balancer has no key."""
    return {"status": "ok"}


@router.get("/metrics", openapi_extra=_published())
async def metrics(request: Request, api: Current) -> Response:
    """Prometheus' text."""
    return Response(api.metrics(request), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/live", openapi_extra=_published())
async def live(request: Request, api: Current) -> JSONResponse:
    """The last minute's rates, per version."""
    return JSONResponse(api.live(request))


@router.get("/v1/models", openapi_extra=_published())
async def models(request: Request, api: Current) -> JSONResponse:
    """The names that are served."""
    return JSONResponse({"object": "list", "data": api.cards(request)})


@router.get("/v1/models/{name}", openapi_extra=_published())
async def model(name: str, request: Request, api: Current) -> JSONResponse:
    """One of them."""
    return JSONResponse(api.card(name, request))


@router.post("/v1/chat/completions", openapi_extra=_published(ChatRequest))
async def chat_completions(request: Request, api: Current) -> Response:
    """The next message of a chat."""
    answer: Response = await api.chat(request)
    return answer


@router.post("/v1/completions", openapi_extra=_published(CompletionRequest))
async def completions(request: Request, api: Current) -> Response:
    """What follows a text."""
    answer: Response = await api.complete(request)
    return answer


@router.post("/v1/classify", openapi_extra=_published(ClassifyRequest))
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
    app.openapi = lambda: app.openapi_schema or _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title="ftlib", version="1", routes=app.routes)
    _, shapes = models_json_schema(
        [(shape, "validation") for shape in SHAPES], ref_template="#/components/schemas/{model}"
    )
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {}).update(shapes["$defs"], Refusal=REFUSAL)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    app.openapi_schema = schema
    return schema


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
    refusal = Refusal(f"{request.method} {request.url.path}: {error.detail}.", status=error.status_code)
    answer = refused(refusal)
    answer.headers.update(error.headers or {})
    return answer


async def _broken(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed.", request.method, request.url.path, exc_info=error)
    return refused(BROKEN)
