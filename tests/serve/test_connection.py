"""The HTTP server's own bounds, on a real uvicorn: those that take too long to wait for on the live endpoint."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from serve import connection
from serve.connection import Connection

from .conftest import free_port


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers without an end, and without reading the body."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await asyncio.sleep(0)
    told = b",".join(sorted(name for name, _ in scope["headers"]))
    await send({"type": "http.response.body", "body": told})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connection, "STALLED", 0.5)
    monkeypatch.setattr(connection, "LINGER", 0.5)
    found = free_port()
    config = uvicorn.Config(application, port=found, http=Connection, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield found
    server.should_exit = True
    thread.join(10)


def talk(port: int, sent: bytes, reads: bool = True) -> float:
    """How long the connection stands."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
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
    assert talk(port, b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n", reads=False) < 5


def test_a_body_that_nobody_wants_may_come_for_a_moment(port: int) -> None:
    assert 0.4 < talk(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nx") < 3


def test_a_client_cannot_ask_serve_to_keep_its_row(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        peer.sendall(
            b"GET / HTTP/1.1\r\nhost: x\r\nX-Request-Disconnect-Disabled: 1\r\na: b\r\nconnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: peer.recv(65536), b""))
    assert b"a,connection,host" in answer
