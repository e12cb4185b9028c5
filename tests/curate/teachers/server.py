"""A server of OpenAI's chat API on this machine, which writes what a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

READ, WRITTEN = 40, 10  # tokens that each answer is said to take
HUGE = 500 * 10**6  # bytes of the answer to 'huge'

Wanted = str | int | dict[str, Any] | bytes  # a text, a status, a message, the bytes of a body


class Server(ThreadingHTTPServer):
    """`reply` says what comes back to a body. `asked` holds the bodies, `most` how many were under way at once, `sent`
    the bytes of a huge answer that were taken."""

    request_queue_size = 64
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply: Callable[[dict[str, Any]], Wanted] = lambda body: "fine"
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.models, self.slow, self.retry_after = ["m"], 0.0, ""
        self.now = self.most = self.sent = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def texts(self) -> list[str]:
        """The last turns that came."""
        return [body["messages"][-1]["content"] for body in self.asked]

    def handle_error(self, *_: Any) -> None:
        pass  # a client that hangs up


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._send(200, json.dumps({"data": [{"id": name} for name in self.server.models]}).encode())

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.asked.append(body)
            server.keys.add(self.headers["authorization"])
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            time.sleep(server.slow)
            self._answer(server.reply(body))
        finally:
            with server.lock:
                server.now -= 1

    def _answer(self, wanted: Wanted) -> None:
        if wanted == "huge":
            self._huge()
        elif isinstance(wanted, int):
            self._send(wanted, b'{"error": "no"}')
        elif isinstance(wanted, bytes):
            self._send(200, wanted)
        else:
            message = wanted if isinstance(wanted, dict) else {"role": "assistant", "content": wanted}
            usage = {"prompt_tokens": READ, "completion_tokens": WRITTEN}
            reason = message.pop("finish_reason", "stop")
            choices = [{"message": message, "finish_reason": reason}]
            self._send(200, json.dumps({"choices": choices, "usage": usage}).encode())

    def _huge(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(HUGE))
        self.end_headers()
        part = b"x" * 65536
        while self.server.sent < HUGE:
            self.wfile.write(part)
            self.server.sent += len(part)

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        if self.server.retry_after and status == 429:
            self.send_header("retry-after", self.server.retry_after)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """A server while the block lasts."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
