"""The HTTP server's own bounds, on a real uvicorn: those that take too long to wait for on the live endpoint."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from serve.front import app, connection
from serve.front.connection import Connection

from .conftest import free_port


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers without an end, and without reading the body."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await asyncio.sleep(0)
    told = b",".join(sorted(name for name, _ in scope["headers"]))
    await send({"type": "http.response.body", "body": told})


@contextmanager
def listening(http: Any) -> Iterator[int]:
    """The port of a server that reads HTTP in this way."""
    found = free_port()
    config = uvicorn.Config(application, port=found, http=http, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield found
    server.should_exit = server.force_exit = True  # also where an answer has no end
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connection, "STALLED", 0.5)
    monkeypatch.setattr(connection, "LINGER", 0.5)
    with listening(Connection) as found:
        yield found


def talk(port: int, sent: bytes, reads: bool = True) -> float:
    """How long the connection stands."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        peer.sendall(sent)
        if not reads:
            time.sleep(1.5)
        try:
            while peer.recv(65536):
                pass
        except ConnectionResetError:
            pass
    return time.monotonic() - began


def test_who_does_not_read_is_hung_up_on(port: int) -> None:
    assert talk(port, b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n", reads=False) < 60


def test_a_body_that_nobody_wants_may_come_for_a_moment(port: int) -> None:
    assert 0.4 < talk(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nx") < 60


def test_a_client_cannot_ask_serve_to_keep_its_row(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        peer.sendall(
            b"GET / HTTP/1.1\r\nhost: x\r\nX-Request-Disconnect-Disabled: 1\r\na: b\r\nconnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: peer.recv(65536), b""))
    assert b"a,connection,host" in answer


def said(port: int, sent: bytes) -> bytes:
    """The answer; nothing where the connection is reset before it is read."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
            peer.sendall(sent)
            return b"".join(iter(lambda: peer.recv(65536), b""))
    except (BrokenPipeError, ConnectionResetError):
        return b""


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        (b"a: b\r\n" * 98, True),  # and two of the request's own
        (b"a: b\r\n" * 99, False),
        (b"a: " + b"b" * 31 * 1024 + b"\r\n", True),
        (b"a: " + b"b" * 33 * 1024 + b"\r\n", False),
    ],
    ids=["100 headers", "101 headers", "31 KiB", "33 KiB"],
)
def test_headers_have_a_number_and_a_size(port: int, headers: bytes, fits: bool) -> None:
    answer = said(port, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + headers + b"\r\n")
    if fits:
        assert answer.split()[1] == b"200"
    else:
        assert not answer or answer.split()[1] == b"431"


def test_a_server_without_the_bounds_is_known(port: int) -> None:
    assert app.bounded(f"http://127.0.0.1:{port}")
    with listening("httptools") as other:
        assert not app.bounded(f"http://127.0.0.1:{other}")
