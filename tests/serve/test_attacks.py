"""What somebody with bad intentions tries: names that are paths, weights that are programs, floods in one request."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from ftlib.errors import InputError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.registry import registry
from serve.engine.options import Endpoint
from serve.front import app
from serve.front.api import Api
from serve.front.catalog import engine_name
from serve.front.http import make_app, this_api

from .conftest import KEY, World, adapter_trial
from .test_failures import Handle

HEADERS = {"authorization": f"Bearer {KEY}"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "x", "max_tokens": 2},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2},
    "/v1/classify": {"input": "x"},
}
NAMES = {
    "up": "../../x",
    "up to a name": "../registry/support",
    "through a name": "support/../support",
    "through a version": "support@../1",
    "a version that is a path": "support@/etc",
    "a version that is signed": "support@+2",
    "a version with zeros": "support@02",
    "a version in other digits": "support@２",
    "absolute": "/etc/passwd",
    "a file url": "file:///etc/passwd",
    "a hub's name": "openai/whisper",
    "encoded": "%2e%2e%2fsupport",
    "encoded twice": "%252e%252e%252fsupport",
    "backslashes": "..\\..\\support",
    "home": "~/support",
    "the alias file": "support/current.json",
    "the version's folder": "support/1/adapter",
    "hidden": ".staged-support",
    "NUL": "support\0",
    "NUL and more": "support\0/../../x",
    "a line end": "support\r\nx-evil: 1",
    "a template": "{{support}}",
    "a formatter": "%s%n{0.__class__}",
    "spaces": " support ",
    "look-alike": "ѕupport",
    "right to left": "\u202esupport",
    "long": "a" * 128,
    "too long": "a" * 100_000,
}


def leaks(world: World, text: str) -> bool:
    """Whether an answer tells where something is on the server, or how it is made."""
    inside = (
        str(world.home),
        str(world.base),
        "/tmp/",
        "/root",
        "/usr/",
        "Traceback",
        'File \\"',
        ".py",
        "site-packages",
    )
    return any(hint in text for hint in inside)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_is_never_a_path(world: World, name: str) -> None:
    for path, body in BODIES.items():
        answer = httpx.post(world.url + path, json={"model": name, **body}, headers=HEADERS, timeout=20)
        assert answer.status_code == (404 if len(name) <= 128 else 400)
        assert answer.json()["error"]["param"] == "model"
        assert len(answer.text) < 1000
        assert not leaks(world, answer.text.replace(name, ""))
        assert "x-evil" not in answer.headers


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_in_the_url_is_never_a_path(world: World, name: str) -> None:
    answer = httpx.get(f"{world.url}/v1/models/{quote(name[:20_000], safe='')}", headers=HEADERS, timeout=20)
    assert answer.status_code == 404
    assert not leaks(world, answer.text.replace(name, ""))


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "support/../../../etc/passwd", "%", "%zz", "%00", "..;/support", "."]
)
def test_a_path_that_no_client_sends(world: World, path: str) -> None:
    address = urlsplit(world.url)
    line = f"GET /v1/models/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=20) as peer:
        peer.sendall(line.encode())
        answer = b"".join(iter(lambda: peer.recv(65536), b"")).decode()
    assert answer.split()[1] in ("400", "404")
    assert not leaks(world, answer)


# --- weights ------------------------------------------------------------------------------------------------------


class Harmful:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def linked_folder(version: Path, mark: Path) -> None:
    shutil.move(version / "adapter", mark.with_suffix(".moved"))
    (version / "adapter").symlink_to(mark.with_suffix(".moved"))


def linked_file(version: Path, mark: Path) -> None:
    weights = version / "adapter" / "adapter_model.safetensors"
    shutil.move(weights, mark.with_suffix(".moved"))
    weights.symlink_to(mark.with_suffix(".moved"))


def linked_tokenizer(version: Path, mark: Path) -> None:
    (version / "adapter" / "tokenizer.json").unlink()
    (version / "adapter" / "tokenizer.json").symlink_to("/etc/passwd")


def pickled(version: Path, mark: Path) -> None:
    (version / "adapter" / "adapter_model.safetensors").unlink()
    (version / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(Harmful(mark)))


def pickled_beside(version: Path, mark: Path) -> None:
    (version / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(Harmful(mark)))


def pickled_in_disguise(version: Path, mark: Path) -> None:
    weights = version / "adapter" / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(pickle.dumps(Harmful(mark)))


def header_without_end(version: Path, mark: Path) -> None:
    weights = version / "adapter" / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes((2**62).to_bytes(8, "little") + b"{" * 1000)


SPOILS: list[Callable[[Path, Path], None]] = [
    linked_folder,
    linked_file,
    linked_tokenizer,
    pickled,
    pickled_beside,
    pickled_in_disguise,
    header_without_end,
]


NUMBERS = itertools.count(666)


@contextmanager
def planted(world: World, spoil: Callable[[Path, Path], None], mark: Path) -> Iterator[str]:
    """Somebody who can write into the registry puts a spoilt version there and points `support` at it."""
    made = registry.register(world.run, adapter_trial(world.run, mark.name, world.base, seed=5), "planted")
    spoil(made.path, mark)
    folder = made.path.parents[1] / "support"
    before = read_json(folder / "current.json") or {}
    number = next(NUMBERS)
    version = folder / str(number)
    made.path.rename(version)
    write_json(
        version / "manifest.json",
        {**(read_json(version / "manifest.json") or {}), "name": "support", "version": number},
    )
    write_json(folder / "current.json", {"version": number, "history": [*before["history"], number]})
    try:
        yield f"support@{number}"
    finally:
        write_json(folder / "current.json", before)
        shutil.rmtree(version)
        shutil.rmtree(made.path.parent)


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_weights_that_must_not_be_loaded_never_are(
    world: World, spoil: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(world.home))
    asked = {"model": "support", "prompt": "x", "max_tokens": 4, "temperature": 0}
    mark = tmp_path / spoil.__name__
    with planted(world, spoil, mark) as version:
        with pytest.raises(InputError, match=version.replace("@", "[@/]")):
            app.build({"names": ["support"]})
        time.sleep(2.5)  # two looks at the registry
        answer = httpx.post(f"{world.url}/v1/completions", json=asked, headers=HEADERS, timeout=30)
        direct = httpx.post(
            f"{world.url}/v1/completions", json={**asked, "model": version}, headers=HEADERS, timeout=30
        )
    assert answer.status_code == 200
    assert answer.json()["system_fingerprint"] == world.served["support"].id  # the name means what it meant
    assert direct.status_code == 404
    assert not leaks(world, answer.text + direct.text)
    assert not mark.exists()


# --- doors and sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "*", "0", "10.0.0.1", "192.168.1.1", "example.org", "localhost.example.org"]
)
def test_without_a_key_only_this_machine_is_let_in(promoted: None, host: str) -> None:
    with pytest.raises(InputError, match="reachable from other machines"):
        app.start(["one"], host=host)


@pytest.mark.parametrize(
    ("peer", "status"), [("127.0.0.1", 200), ("::1", 200), ("10.0.0.5", 401), ("", 401), ("::", 401)]
)
def test_serves_own_tools_bind_wide_and_a_keyless_endpoint_answers_this_machine_alone(
    promoted: None, tmp_path: Path, peer: str, status: int
) -> None:
    async def ask() -> httpx.Response:
        http = make_app()
        engines = {engine_name(registry.resolve("one")): Handle()}  # there already, or they would be started
        http.dependency_overrides[this_api] = lambda: Api(Endpoint(), str(tmp_path / "home"), "", engines)
        transport = httpx.ASGITransport(app=http, client=(peer, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/v1/models")

    assert asyncio.run(ask()).status_code == status


FLOODS: dict[str, tuple[str, dict[str, Any], int]] = {
    "a long prompt": ("/v1/completions", {"prompt": "x" * 900_000}, 400),
    "many tokens": ("/v1/completions", {"prompt": [5] * 200_000}, 400),
    "many prompts": ("/v1/completions", {"prompt": ["x"] * 10_000}, 400),
    "many answers": ("/v1/completions", {"prompt": ["x"] * 16, "n": 16}, 400),
    "a long chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}] * 20_000}, 400),
    "a long message": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 900_000}]}, 400),
    "a long role": ("/v1/chat/completions", {"messages": [{"role": "x" * 900_000, "content": "x"}]}, 400),
    "many stop strings": ("/v1/completions", {"prompt": "x", "stop": ["x"] * 100_000}, 400),
    "a long stop string": ("/v1/completions", {"prompt": "x", "stop": "y" * 900_000}, 400),
    "many biases": ("/v1/completions", {"prompt": "x", "logit_bias": {str(n): 1 for n in range(5000)}}, 400),
    "a body too large": ("/v1/completions", {"prompt": "x" * 1_100_000}, 413),
    "a body far too large": ("/v1/completions", {"prompt": "x" * 50_000_000}, 413),
}


@pytest.mark.parametrize(("path", "fields", "status"), FLOODS.values(), ids=FLOODS)
def test_one_request_is_no_flood(world: World, path: str, fields: dict[str, Any], status: int) -> None:
    began = time.monotonic()
    body = {"model": "support", "max_tokens": 2, "timeout": 5, **fields}
    try:
        answer = httpx.post(world.url + path, json=body, headers=HEADERS, timeout=30)
    except httpx.WriteError:  # hung up on while it still sends
        assert status == 413
    else:
        assert answer.status_code == status
        assert not leaks(world, answer.text)
        assert len(answer.text) < 2000
    assert time.monotonic() - began < 60
    assert httpx.get(f"{world.url}/health", timeout=60).status_code == 200


def test_a_body_is_not_read_before_the_key_is(world: World) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b"x" * 100_000

    try:
        answer = httpx.post(f"{world.url}/v1/completions", content=endless(), timeout=30)
    except httpx.WriteError:
        return
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/etc/passwd", "/page.html", "/serve/front/http.py", "/static/x", "//etc"]
)
def test_nothing_else_is_there(world: World, path: str) -> None:
    answer = httpx.get(world.url + path, headers=HEADERS)
    assert answer.status_code == 404
    assert set(json.loads(answer.text)) == {"error"}


def test_no_other_site_is_let_in_by_a_browser(world: World) -> None:
    answer = httpx.get(f"{world.url}/v1/models", headers={**HEADERS, "origin": "https://evil.example"})
    assert not any(name.startswith("access-control") for name in answer.headers)
