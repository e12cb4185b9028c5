"""What the client sees when something breaks: engines that fail, engines that are full, endpoints that cannot start."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time

import httpx
import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from ftlib.errors import FtlibError, InputError
from ftlib.files.atomic import write_json
from ftlib.registry import registry
from ftlib.run.directory import Run
from serve.engine.messages import Piece, Refusal
from serve.engine.model import Loaded
from serve.engine.options import Endpoint
from serve.front import app
from serve.front.api import Api
from serve.front.catalog import engine_name
from serve.front.http import make_app, this_api

BODY = {"model": "one", "prompt": "x"}


class Handle:
    """Stands for a handle of an engine that gives these pieces, and raises those of them that are errors."""

    def __init__(self, *pieces):
        self.pieces, self.cancelled = list(pieces), False
        self.asked = 0
        self.options = lambda **_: self
        self.generate = self

    def remote(self, ask):
        self.asked += 1
        return self

    def cancel(self):
        self.cancelled = True

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.pieces:
            raise StopAsyncIteration
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece


def post(handle: Handle, content=None, **options) -> httpx.Response:
    content = json.dumps({**BODY, **options}).encode() if content is None else content

    async def send() -> httpx.Response:
        http = make_app()
        handles = {engine_name(registry.resolve("one")): handle}
        api = Api(Endpoint(names=["one"], max_extra_engines=0), os.environ["FTLIB_HOME"], "", handles)
        http.dependency_overrides[this_api] = lambda: api
        transport = httpx.ASGITransport(app=http, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/v1/completions", content=content, headers={"content-type": "application/json"})

    return asyncio.run(send())


@pytest.mark.parametrize("pieces", [[ValueError("secret")], [Piece(prompt_tokens=1), Piece("a"), ValueError("secret")]])
def test_an_engine_that_breaks_is_a_500_without_its_traceback(promoted, pieces):
    handle = Handle(*pieces)
    answer = post(handle)
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert handle.cancelled


def test_a_stream_that_breaks_says_so_in_its_last_event(promoted):
    handle = Handle(Piece("a"), ValueError("secret"))
    events = post(handle, stream=True).text.strip().split("\n\n")
    assert json.loads(events[0][6:])["choices"][0]["text"] == "a"
    assert json.loads(events[-1][6:])["error"]["code"] == "internal_error"
    assert "secret" not in "".join(events)
    assert handle.cancelled


@pytest.mark.parametrize("stream", [True, False])
def test_a_full_queue_is_a_429(promoted, stream):
    answer = post(Handle(BackPressureError(64, 64)), stream=stream)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("stream", [True, False])
def test_a_replica_that_dies_before_its_first_word_is_replaced(promoted, stream):
    handle = Handle(RayActorError(), Piece("said", finish_reason="stop"))
    answer = post(handle, stream=stream)
    assert answer.status_code == 200
    assert "said" in answer.text
    assert handle.asked == 2


def test_a_replica_that_dies_on_the_way_is_told(promoted):
    whole = post(Handle(Piece("a"), RayActorError()))
    assert whole.status_code == 503
    assert whole.headers["retry-after"] == "2"
    events = post(Handle(Piece("a"), RayActorError()), stream=True).text.strip().split("\n\n")
    assert json.loads(events[-1][6:])["error"]["code"] == "engine_unavailable"


def test_a_refusal_on_the_way_has_its_status(promoted):
    late = Refusal("too late", None, "deadline_exceeded", 408, "timeout_error")
    assert post(Handle(Piece("a"), late)).status_code == 408
    events = post(Handle(Piece("a"), late), stream=True).text.strip().split("\n\n")
    assert json.loads(events[-1][6:])["error"]["code"] == "deadline_exceeded"


def test_a_version_without_an_engine_says_when_to_come_again(promoted, tmp_path):
    first = registry.resolve("one")
    run = Run.open(next((tmp_path / "runs").iterdir()))
    registry.register(run, run.trial("two"), "one")
    manifest = first.manifest
    manifest["experiment"]["model"]["dtype"] = "bfloat16"  # so that it has an engine of its own
    write_json(first.path / "manifest.json", manifest)
    engine_name.cache_clear()
    answer = post(Handle(), model="one@1", timeout=0.3)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert post(Handle(Piece("said", finish_reason="stop")), model="one@2").status_code == 200


def test_the_time_that_a_body_takes_is_the_requests(promoted):
    async def slowly():
        await asyncio.sleep(0.3)
        yield json.dumps({**BODY, "timeout": 0.2}).encode()

    handle = Handle(Piece("said", finish_reason="stop"))
    answer = post(handle, slowly())
    assert answer.status_code == 408
    assert handle.asked == 0


def test_the_registry_is_looked_at_again_and_again(promoted, tmp_path):
    run = Run.open(next((tmp_path / "runs").iterdir()))

    async def follows() -> float:
        handles = {engine_name(registry.resolve("one")): Handle()}
        api = Api(Endpoint(names=["one"], max_extra_engines=0), os.environ["FTLIB_HOME"], "", handles)
        await api.check_health()
        registry.register(run, run.trial("two"), "one")
        began = time.monotonic()
        while api._catalog.route("one").id != "one@2" and time.monotonic() - began < 10:
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    assert asyncio.run(follows()) < 5  # a second, on a machine that has the time


class Leaving:
    """Stands for the handle of an HTTP side that says so many times how many requests are left."""

    def __init__(self, *left):
        self.left = list(left)
        self.leave = self

    def remote(self):
        return self

    def result(self, timeout_s):
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


def test_what_was_begun_has_its_time_to_end(monkeypatch):
    monkeypatch.setattr(app, "SETTLE", 0)
    monkeypatch.setattr(app.serve, "get_app_handle", lambda name: Leaving(2, 1, 0))
    assert app.drain() == 0
    monkeypatch.setattr(app.serve, "get_app_handle", lambda name: Leaving(1))
    began = time.monotonic()
    assert app.drain(0.3) == 1
    assert 0.3 <= time.monotonic() - began < 60


def test_no_port_no_key_no_name(monkeypatch, tmp_path):
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))
    with pytest.raises(InputError, match="registry is empty"):
        app.start([])
    with pytest.raises(InputError, match="'nobody' is not in the registry"):
        app.start(["nobody"])
    for host in ("0.0.0.0", "::", "example.org"):
        with pytest.raises(InputError, match="give an --api-key"):
            app.start(["nobody"], host=host)
    for wrong in ({"replicas": {"min": 0}}, {"api_key": "with space"}, {"api_key": ""}, {"nmae": "x"}):
        with pytest.raises(InputError, match=next(iter(wrong))) as caught:
            app.build(wrong)
        assert "with space" not in str(caught.value)  # a key is no one's to read


def test_a_taken_port_is_named(promoted):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port} on 127.0.0.1 cannot be used"):
            app.start(["one"], port=port)
    for port in (0, 99999):
        with pytest.raises(InputError, match="from 1 to 65535"):
            app.start(["one"], port=port)


def test_versions_share_a_base_when_it_is_read_alike(promoted):
    one, two = registry.resolve("one"), registry.resolve("two@1")
    assert engine_name(one) == engine_name(two)
    manifest = two.manifest
    manifest["experiment"]["model"]["dtype"] = "bfloat16"
    write_json(two.path / "manifest.json", manifest)
    engine_name.cache_clear()  # versions do not change, outside of tests
    assert engine_name(one) != engine_name(two)


def test_a_base_that_changed_since_training_is_refused(promoted, tmp_path):
    version = registry.resolve("one")
    Loaded(version)
    manifest = version.manifest
    manifest["base"]["fingerprint"] = "0" * 64
    write_json(version.path / "manifest.json", manifest)
    with pytest.raises(FtlibError, match="changed since one@1 was trained"):
        Loaded(version)
    manifest["base"]["name_or_path"] = str(tmp_path / "gone")
    write_json(version.path / "manifest.json", manifest)
    with pytest.raises(FtlibError, match="which is gone"):
        Loaded(version)


def test_the_reason_is_our_sentence():
    trace = "Traceback:\n  File x\nftlib.errors.FtlibError: The base changed.\n\nmore of Serve's"
    assert app._reason(trace) == "The base changed."
    assert app._reason("one\ntwo") == "two"
