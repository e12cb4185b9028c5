"""Requests that nobody means: made up from the published OpenAPI, and 1,000 broken ones. None may hurt the endpoint."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from serve.front.http import make_app

from .conftest import KEY, World

HEADERS = {"authorization": f"Bearer {KEY}"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
PATIENCE = 20  # seconds; what is not answered by then hangs
SHORT = {"max_tokens": 2, "max_completion_tokens": 2, "timeout": 1}


# --- from the OpenAPI --------------------------------------------------------------------------------------------


schema = schemathesis.openapi.from_dict(make_app().openapi())


def made_up(examples: int) -> settings:
    phases = (Phase.explicit, Phase.generate)
    checks = list(HealthCheck)
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples < 100,
        phases=phases,
        suppress_health_check=checks,
        database=None,
    )


def send(world: World, case: Any) -> None:
    """Sends a case, with a name that is served in most, and few tokens to write. What is wrong in it stays wrong."""
    body = case.body
    if isinstance(body, dict):
        if isinstance(body.get("model"), str) and 0 < len(body["model"]) <= 128:
            served = ["sorter"] if case.path == "/v1/classify" else ["support", "full.model"]
            body["model"] = (*served, body["model"])[len(str(body)) % (len(served) + 1)]
        for name, most in SHORT.items():
            given = body.get(name)
            if given is None or (type(given) in (int, float) and given > most):
                body[name] = most
    case.call_and_validate(base_url=world.url, headers=HEADERS, checks=CHECKS, timeout=PATIENCE)


def test_the_schema_is_the_published_one(world: World) -> None:
    assert httpx.get(f"{world.url}/openapi.json").json() == make_app().openapi()


@schema.parametrize()
@made_up(80)
def test_made_up_requests_are_answered_as_published(world: World, case: Any) -> None:
    send(world, case)


@pytest.mark.matrix
@schema.parametrize()
@made_up(1000)
def test_many_made_up_requests_are_answered_as_published(world: World, case: Any) -> None:
    send(world, case)


# --- broken on purpose -------------------------------------------------------------------------------------------

VALID: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "support", "prompt": "x", **SHORT, "temperature": 0},
    "/v1/chat/completions": {
        "model": "support",
        "messages": [{"role": "user", "content": "x"}],
        **SHORT,
        "temperature": 0,
    },
    "/v1/classify": {"model": "sorter", "input": ["x"]},
}
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    "",
    "5",
    "\0",
    [],
    {},
    [[]],
    [None],
]
RAW = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-0",
    "9" * 4000,
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\x01\x1f"',
    '"\\u0000"',
]
KINDS = [
    "application/json",
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "",
    "ÿ",
]
NOT_JSON = [
    b"",
    b" ",
    b"null",
    b"[]",
    b"0",
    b'"x"',
    b"{",
    b"}",
    b"{'a': 1}",
    b"{,}",
    b'{"a": 1,}',
    b"// x",
    b"\xef\xbb\xbf{}",
]


def truncated(rng: random.Random, valid: dict[str, Any]) -> bytes:
    text = json.dumps(valid).encode()
    return text[: rng.randrange(len(text))]


def odd_value(rng: random.Random, valid: dict[str, Any]) -> bytes:
    return json.dumps({**valid, rng.choice(FIELDS): rng.choice(ODD)}).encode()


def odd_text(rng: random.Random, valid: dict[str, Any]) -> bytes:
    return json.dumps({**valid, rng.choice(FIELDS): "@@"}).replace('"@@"', rng.choice(RAW)).encode()


def nested(rng: random.Random, valid: dict[str, Any]) -> bytes:
    depth, (begin, end) = rng.choice([10, 300, 5000, 100_000]), rng.choice([("[", "]"), ('{"a":', "}")])
    deep = begin * depth + "1" + end * rng.choice([depth, 0])
    return json.dumps({**valid, rng.choice(FIELDS): "@@"}).replace('"@@"', deep).encode()


def invalid_utf8(rng: random.Random, valid: dict[str, Any]) -> bytes:
    text = bytearray(json.dumps(valid).encode())
    for _ in range(rng.randint(1, 4)):
        text.insert(rng.randrange(len(text)), rng.choice([0x80, 0xC0, 0xED, 0xF5, 0xFF]))
    return bytes(text)


def twice(rng: random.Random, valid: dict[str, Any]) -> bytes:
    name = rng.choice(list(valid))
    return (json.dumps(valid)[:-1] + f', "{name}": {json.dumps(rng.choice(ODD))}}}').encode()


def gigantic(rng: random.Random, valid: dict[str, Any]) -> bytes:
    many = rng.choice(
        [[0] * 300_000, ["x"] * 150_000, [[]] * 200_000, "x" * 900_000, {str(n): n for n in range(50_000)}]
    )
    return json.dumps({**valid, rng.choice(FIELDS): many}).encode()


def noise(rng: random.Random, valid: dict[str, Any]) -> bytes:
    return rng.choice([rng.randbytes(rng.randrange(200)), json.dumps(valid).encode("utf-16"), rng.choice(NOT_JSON)])


def flipped(rng: random.Random, valid: dict[str, Any]) -> bytes:
    text = bytearray(json.dumps(valid).encode())
    for _ in range(rng.randint(1, 3)):
        text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text)


FIELDS = [*VALID["/v1/completions"], "messages", "input", "n", "top_p", "top_k", "min_p", "stop", "seed", "logit_bias"]
FIELDS += ["logprobs", "top_logprobs", "stream", "stream_options", "presence_penalty", "best_of", "echo", "tools", "x"]
BREAKS: list[Callable[[random.Random, dict[str, Any]], bytes]] = [
    truncated,
    odd_value,
    odd_text,
    nested,
    invalid_utf8,
    twice,
    noise,
    flipped,
]


def broken(count: int, seed: int) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """(path, headers, body) of requests. Every fiftieth is gigantic."""
    rng = random.Random(seed)
    for number in range(count):
        path = rng.choice(list(VALID))
        spoil = gigantic if number % 50 == 0 else rng.choice(BREAKS)
        yield path, {"content-type": rng.choice(KINDS).encode("latin-1")}, spoil(rng, VALID[path])


def test_a_thousand_broken_bodies_hurt_nobody(world: World, client: openai.OpenAI) -> None:
    asked = {"model": "support", "prompt": "the quick brown", "max_tokens": 24, "temperature": 0}
    before = client.completions.create(**asked).choices[0].text
    with httpx.Client(base_url=world.url, headers=HEADERS, timeout=PATIENCE) as http, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda request: _answered(http, *request), broken(1000, seed=5)))
    wrong = [(body[:300], answer.status_code, answer.text[:300]) for body, answer in answers if not _in_shape(answer)]
    assert wrong == []
    assert sum(answer.status_code == 400 for _, answer in answers) > 500
    assert client.completions.create(**asked).choices[0].text == before


def _answered(http: httpx.Client, path: str, headers: Any, body: bytes) -> tuple[bytes, httpx.Response]:
    return body, http.post(path, content=body, headers=headers)


def _in_shape(answer: httpx.Response) -> bool:
    """An answer, or a refusal of the client's own making in OpenAI's shape, which says nothing of the inside."""
    if answer.status_code == 200:
        return True
    told = answer.json()["error"]
    return (
        400 <= answer.status_code < 500 and set(told) == {"message", "type", "param", "code"} and bool(told["message"])
    )


START = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n".encode()
BODY = json.dumps(VALID["/v1/completions"]).encode()
LENGTH = b"content-length: %d\r\n" % len(BODY)
UNTIDY = {
    "a length too large": START + b"content-length: 5000\r\n\r\n" + BODY,
    "a length too small": START + b"content-length: 5\r\n\r\n" + BODY,
    "no length": START + b"\r\n" + BODY,
    "a length that is no number": START + b"content-length: x\r\n\r\n" + BODY,
    "a negative length": START + b"content-length: -1\r\n\r\n" + BODY,
    "two lengths": START + LENGTH + b"content-length: 3\r\n\r\n" + BODY,
    "a length and chunks": START + LENGTH + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + BODY,
    "chunks that are none": START + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + BODY,
    "a chunk without end": START + b"transfer-encoding: chunked\r\n\r\nffffffff\r\n" + BODY,
    "a hundred kilobytes of header": START + b"x: " + b"y" * 100_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "ten thousand headers": START + b"x: y\r\n" * 10_000 + LENGTH + b"\r\n" + BODY,
    "a NUL in a header": START + b"x: \0\r\n" + LENGTH + b"\r\n" + BODY,
    "a header of bytes": START + b"x: \xff\xfe\r\n" + LENGTH + b"\r\n" + BODY,
    "a header without a name": START + b": y\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded header": START + b"x: a\r\n b\r\n" + LENGTH + b"\r\n" + BODY,
    "two keys": START + b"authorization: Bearer other\r\n" + LENGTH + b"\r\n" + BODY,
    "an expectation": START + b"expect: 100-continue\r\n" + LENGTH + b"\r\n" + BODY,
    "a compressed body that is not": START + b"content-encoding: gzip\r\n" + LENGTH + b"\r\n" + BODY,
    "an upgrade": START + b"connection: upgrade\r\nupgrade: websocket\r\n" + LENGTH + b"\r\n" + BODY,
    "an unknown version": START.replace(b"HTTP/1.1", b"HTTP/9.9") + LENGTH + b"\r\n" + BODY,
    "an unknown method": START.replace(b"POST", b"BREW") + LENGTH + b"\r\n" + BODY,
    "a whole url": START.replace(b"/v1", b"http://elsewhere/v1") + LENGTH + b"\r\n" + BODY,
    "no host": START.replace(b"host: x\r\n", b"") + LENGTH + b"\r\n" + BODY,
    "a long path": START.replace(b"/v1", b"/" + b"a" * 70_000) + LENGTH + b"\r\n" + BODY,
    "TLS": bytes.fromhex("16030100") + b"\xc8\x01\x00\x00\xc4\x03\x03" + bytes(200),
    "no HTTP": b"\x00" * 1000,
}


# The server may ask for the body that an expectation announces, before its answer.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("name", UNTIDY)
def test_untidy_http_is_answered_or_hung_up_on(world: World, name: str) -> None:
    answer = _exchanged(world.url, UNTIDY[name]).removeprefix(CONTINUE)
    assert not answer or 200 <= int(answer.split(b" ", 2)[1]) < 500 or answer.startswith(b"HTTP/1.1 505"), answer[:300]
    assert httpx.get(f"{world.url}/health", timeout=PATIENCE).status_code == 200


def _exchanged(url: str, sent: bytes) -> bytes:
    """What comes back until the other side hangs up, or is done. Raises TimeoutError when it does neither."""
    address = urlsplit(url)
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as peer:
        try:
            peer.sendall(sent)
            peer.shutdown(socket.SHUT_WR)
            while part := peer.recv(65536):
                received += part
        except (BrokenPipeError, ConnectionResetError):
            pass
    return received
