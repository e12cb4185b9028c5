"""What the endpoint says of itself at /openapi.json: bodies are parsed by us, after the key, so FastAPI knows neither
them nor the answers. The fuzzer holds the endpoint to every word of it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from serve.front.openai import ChatRequest, ClassifyRequest, CompletionRequest, Request

Schema = dict[str, Any]
SHAPES: tuple[type[Request], ...] = (ChatRequest, CompletionRequest, ClassifyRequest)
STATUSES = {
    400: "The request is wrong: `param` says where.",
    401: "The key is missing or wrong.",
    403: "The key does not open this model; or, without a key, the request names another host or comes from another "
    "site.",
    404: "The model is not served.",
    408: "The deadline passed, or the body came too slowly.",
    413: "The body is too large.",
    415: "Without a key, a body needs the content type application/json.",
    422: "The model is there and cannot answer.",
    429: "Too many requests: `Retry-After` says when to try again.",
    503: "An engine is starting, or the endpoint is ending.",
}


def _object(**fields: Schema) -> Schema:
    return {"type": "object", "required": list(fields), "properties": fields}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _one(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


TEXT: Schema = {"type": "string"}
MAYBE: Schema = {"type": ["string", "null"]}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
LOGPROBS: Schema = {"type": ["object", "null"]}

USAGE = _object(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT)
CARD = _object(id=TEXT, object=_one("model"), created=COUNT, owned_by=TEXT, root=TEXT)
CARD["properties"] |= {"canary": TEXT, "canary_share": NUMBER}
RATES = _object(requests=COUNT, errors=COUNT, tokens=COUNT, seconds=NUMBER)
CHOICE = {"index": COUNT, "finish_reason": _one("stop", "length"), "logprobs": LOGPROBS}
HEAD = {"id": TEXT, "created": COUNT, "model": TEXT, "system_fingerprint": TEXT}
MESSAGE = _object(role=_one("assistant"), content=TEXT)
EVENT = _object(data=TEXT)  # of a stream: a chunk as JSON, a refusal, or [DONE]
LABEL = _object(index=COUNT, label=TEXT, scores=_map(NUMBER))

ANSWERS: dict[str, Schema] = {
    "Refusal": _object(error=_object(message=TEXT, type=TEXT, param=MAYBE, code=MAYBE)),
    "Health": _object(status=_one("ok")),
    "Live": _object(window=COUNT, versions=_map(RATES)),
    "Model": CARD,
    "Models": _object(object=_one("list"), data=_list(CARD)),
    "Chat": _object(
        **HEAD, object=_one("chat.completion"), choices=_list(_object(**CHOICE, message=MESSAGE)), usage=USAGE
    ),
    "Completion": _object(
        **HEAD, object=_one("text_completion"), choices=_list(_object(**CHOICE, text=TEXT)), usage=USAGE
    ),
    "Labels": _object(
        object=_one("list"),
        model=TEXT,
        system_fingerprint=TEXT,
        data=_list(LABEL),
        usage=_object(prompt_tokens=COUNT, total_tokens=COUNT),
    ),
}


def route(answer: str | None = None, asked: type[Request] | None = None, streams: bool = False) -> Schema:
    """A route's part of the OpenAPI: what it answers, what it may refuse with, and what it is asked."""
    responses = {str(status): {"description": text, "content": _json("Refusal")} for status, text in STATUSES.items()}
    if answer is not None:
        stream = {"text/event-stream": {"schema": EVENT}} if streams else {}
        responses["200"] = {"description": "The answer.", "content": {**_json(answer), **stream}}
    told: Schema = {"responses": responses, "security": [{"key": []}, {}]}
    if asked is not None:
        told["requestBody"] = {"required": True, "content": _json(asked.__name__)}
    return told


def openapi(app: FastAPI) -> Schema:
    """The whole document, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(title="ftlib", version="1", routes=app.routes)
        asked = [(shape, "validation") for shape in SHAPES]
        _, shapes = models_json_schema(asked, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {}).update(shapes["$defs"], **ANSWERS)
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = schema
    return app.openapi_schema


def _json(name: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
