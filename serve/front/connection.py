"""One connection to the HTTP side: how much, and how slowly, it may send before anybody knows who it is.

Serve's proxy runs uvicorn, which reads headers without an end and waits for them without one. Serve has one hook in
that process, a function whose import path stands in the environment in which Ray starts:

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.front.connection:bounded

`ftlib serve` sets it (`app`); elsewhere it belongs beside FTLIB_HOME, where `ray start` runs.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HOOK = ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serve.front.connection:bounded")
HEADERS = 32 * 1024  # bytes of a request's line and headers together
COUNT = 100  # headers
SERVES_OWN = (b"x-request-disconnect-disabled", b"x-request-timeout-seconds")
SECONDS = (
    10.0  # until the headers are whole, from the first moment of a connection or the first byte of a later request
)
STALLED = 60.0  # seconds in which a client may read nothing of its answer
LINGER = 2.0  # seconds in which a client may still send a body whose answer it has, so that it reads the answer


def bounded() -> list[Any]:
    """Serve calls it in its proxy, before the server starts, for the middlewares to add: there are none."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"
    return []


class Connection(HttpToolsProtocol):
    """uvicorn's, which hangs up on who sends too much or too slowly."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._size = 0  # bytes of the request that is coming in, up to the end of its headers; -1: they are whole
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there, and has said nothing."""
        super().connection_made(transport)
        self._wait(SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._forget()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes, which may be a part of a line of headers without end: they are counted before they are kept."""
        if self.transport.is_closing():
            return
        if self._size >= 0:
            if not self._size and self._late is None:
                self._wait(SECONDS, self._too_slow)
            end = data.find(b"\r\n\r\n")
            self._size += len(data) if end < 0 else end
            if self._size > HEADERS:
                self._hang_up(431, f"The headers are larger than {HEADERS} bytes: send fewer.")
                return
        super().data_received(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One more. Those by which Serve would let a client keep its row after it hung up are not passed on."""
        if name.lower() in SERVES_OWN:
            return
        if len(self.headers) < COUNT:
            super().on_header(name, value)
        elif not self.transport.is_closing():
            self._hang_up(431, f"There are more than {COUNT} headers: send fewer.")

    def on_headers_complete(self) -> None:
        """From here on the request is the application's: it knows how large and how slow a body may be."""
        self._size = -1
        self._forget()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole; what follows are the next request's headers."""
        self._size = 0
        self._forget()
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is out. A body that is still coming is nobody's: it may come for a moment, and no longer."""
        super().on_response_complete()
        if self._size < 0 and not self.transport.is_closing():
            self._wait(LINGER, self.transport.close)

    def pause_writing(self) -> None:
        """The client does not read what it asked for."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads on."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _wait(self, seconds: float, then: Any) -> None:
        self._forget()
        self._late = self.loop.call_later(seconds, then)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_slow(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self._hang_up(408, f"The headers did not arrive within {SECONDS:g} s.")

    def _hang_up(self, status: int, message: str) -> None:
        """The refusal, in OpenAI's shape, and the end."""
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
