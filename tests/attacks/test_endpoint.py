"""A live endpoint without a key, as `ftlib serve` starts it: what a stranger's page, connection or signal can do to
it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ftlib.registry import registry
from ftlib.run.directory import Run
from serve.front import app

from ..serve.conftest import TEMPLATE, adapter_trial, free_port, tiny_model, tiny_tokenizer

BODY = {"model": "one", "prompt": "x", "max_tokens": 2}
SLOW = 2.0  # seconds that a body has; with it, no test waits longer
HEADERS_WAIT = 10.0  # seconds that headers have


@dataclass(frozen=True)
class Live:
    """The process, and where it answers."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def post(self, headers: dict[str, str], content: bytes = json.dumps(BODY).encode()) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/completions", content=content, headers=headers, timeout=20)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=20)

    def answers(self) -> bool:
        return self.post({"content-type": "application/json"}).status_code == 200


def promoted(folder: Path) -> None:
    base = folder / "base"
    tiny_model(seed=0).save_pretrained(base)
    tiny_tokenizer(TEMPLATE).save_pretrained(base)
    run = Run.create(folder / "runs", "tiny", "", {})
    registry.register(run, adapter_trial(run, "one", base, seed=1), "one")


def served(folder: Path) -> Live:
    port, log = free_port(), folder / "log"
    environment = {**os.environ, "FTLIB_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ftlib.cli", "serve", "one", "--port", str(port), f"body_seconds={SLOW}"],
            env=environment,
            stdout=out,
            stderr=out,
        )
    live = Live(process, port, log)
    deadline = time.monotonic() + 120
    while b"(Ctrl-C stops)" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return live


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTLIB_HOME", str(folder / "home"))
        promoted(folder)
    endpoint = served(folder)
    yield endpoint
    end(endpoint)


def end(live: Live) -> None:
    if live.process.poll() is None:
        live.process.send_signal(signal.SIGTERM)
        live.process.wait(60)


# --- what a page of another site makes a browser send -----------------------------------------------------------------

JSON = {"content-type": "application/json"}
SITES: dict[str, tuple[dict[str, str], int]] = {
    "a program": (JSON, 200),
    "localhost": ({**JSON, "host": "localhost:{port}"}, 200),
    "the page itself": ({**JSON, "origin": "http://127.0.0.1:{port}"}, 200),
    "a charset": ({"content-type": "application/json; charset=utf-8"}, 200),
    "a name that was pointed here": ({**JSON, "host": "evil.example:{port}"}, 403),
    "a name that begins as ours": ({**JSON, "host": "localhost.evil.example"}, 403),
    "a name that ends as ours": ({**JSON, "host": "evil.localhost.example:80"}, 403),
    "an address of another machine": ({**JSON, "host": "10.0.0.1"}, 403),
    "no name": ({**JSON, "host": ""}, 403),
    "another site": ({**JSON, "origin": "https://evil.example"}, 403),
    "a file": ({**JSON, "origin": "null"}, 403),
    "another port": ({**JSON, "origin": "http://127.0.0.1:1"}, 403),
    "a form": ({"content-type": "text/plain"}, 415),
    "another form": ({"content-type": "application/x-www-form-urlencoded"}, 415),
    "a form with files": ({"content-type": "multipart/form-data; boundary=application/json"}, 415),
    "nothing": ({}, 415),
}


@pytest.mark.parametrize(("headers", "status"), SITES.values(), ids=SITES)
def test_without_a_key_no_other_site_is_answered(live: Live, headers: dict[str, str], status: int) -> None:
    answer = live.post({name: value.replace("{port}", str(live.port)) for name, value in headers.items()})
    assert answer.status_code == status, answer.text
    assert status == 200 or set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/one", "/v1/live", "/metrics"])
def test_under_a_name_that_was_pointed_here_nothing_is_read(live: Live, path: str) -> None:
    assert live.get(path).status_code == 200
    answer = live.get(path, host=f"evil.example:{live.port}")
    assert answer.status_code == 403
    assert "one@1" not in answer.text


# --- connections ------------------------------------------------------------------------------------------------------


def exchanged(live: Live, *parts: bytes, pause: float = 0.0, patience: float = 60) -> tuple[bytes, float]:
    """What comes back on one connection for parts that are sent with a pause between them, and after how many
    seconds."""
    began, received = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", live.port), timeout=patience) as peer:
        try:
            for part in parts:
                peer.sendall(part)
                peer.settimeout(pause or patience)
                if pause:
                    try:
                        received += peer.recv(65536)
                        break
                    except TimeoutError:
                        continue
            peer.settimeout(patience)
            while part := peer.recv(65536):
                received += part
        except (BrokenPipeError, ConnectionResetError):
            pass
    return received, time.monotonic() - began


START = b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "parts",
    [[START, *[b"x: y\r\n" * 10] * 200], [START + b"x: ", *[b"y" * 1000] * 200], [b"GET /", *[b"a" * 1000] * 200]],
    ids=["many headers", "a long header", "a long path"],
)
def test_headers_without_an_end_are_hung_up_on_at_once(live: Live, parts: list[bytes]) -> None:
    answer, seconds = exchanged(live, *parts)
    assert not answer or answer.split()[1] == b"431"
    assert seconds < HEADERS_WAIT / 2
    assert live.answers()
    assert app.bounded(live.url)
    assert "warning" not in live.log.read_text()


def test_who_sends_slowly_is_hung_up_on_in_time(live: Live) -> None:
    """All at once: a connection that says nothing, headers and bodies that trickle."""
    length = b"content-length: 500\r\n\r\n"
    trickles: dict[str, tuple[list[bytes], bytes, float]] = {
        "nothing": ([b""], b"408", HEADERS_WAIT),
        "headers": ([START, *[b"x: y\r\n"] * 100], b"408", HEADERS_WAIT),
        "a body": ([START + length, *[b" "] * 100], b"408", SLOW),
        "no body": ([START + length], b"408", SLOW),
    }
    with ThreadPoolExecutor(len(trickles)) as pool:
        asked = {
            name: pool.submit(exchanged, live, *parts, pause=0.4 if len(parts) > 1 else 0)
            for name, (parts, _, _) in trickles.items()
        }
        assert live.answers()  # nobody else waits for them
        for name, (_, status, seconds) in trickles.items():
            answer, took = asked[name].result()
            assert answer.split()[1] == status, (name, answer)
            assert seconds - 1 < took < seconds + 60, (name, took)


def test_a_connection_is_used_again_whatever_came_before(live: Live) -> None:
    with httpx.Client(base_url=live.url, timeout=20) as http:
        for _ in range(3):
            assert http.post("/v1/completions", json=BODY).status_code == 200
            assert http.post("/v1/completions", json={**BODY, "model": "nobody"}).status_code == 404
            assert http.post("/v1/completions", content=b"x" * 500_000).status_code == 415
        time.sleep(2.5)  # a connection that idles is not one that is slow
        assert http.post("/v1/completions", json=BODY).status_code == 200


# --- the end ----------------------------------------------------------------------------------------------------------


def begun(live: Live, tokens: int = 3500) -> Any:
    """A stream that takes some seconds, of which the first word is there."""
    stream = live.client().completions.create(
        model="one", prompt="x", max_tokens=tokens, temperature=0, stream=True, timeout=60
    )
    next(iter(stream))
    return stream


def test_sigterm_ends_what_was_begun_and_takes_nothing_new(live: Live) -> None:
    """The last test on this process."""
    stream = begun(live, tokens=1200)  # which a busy machine, too, writes within the time of draining
    live.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 60
    while (refused := live.post(JSON)).status_code == 200:
        assert time.monotonic() < deadline
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert live.get("/health").status_code == 503
    assert list(stream)[-1].choices[0].finish_reason == "length"
    assert live.process.wait(30) == 0
    said = live.log.read_text()
    assert "Traceback" not in said
    assert "SIGTERM" not in said
    assert "***" not in said


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    promoted(tmp_path)
    live = served(tmp_path)
    try:
        stream = begun(live)
        live.process.send_signal(number)
        time.sleep(1)
        assert live.process.poll() is None
        live.process.send_signal(number)
        assert live.process.wait(15) == 130
        with pytest.raises((openai.APIError, httpx.HTTPError)):
            list(stream)
        assert "Traceback" not in live.log.read_text()
    finally:
        end(live)
