"""A push to a server that speaks the Hub's API as far as huggingface_hub asks: whole, private, resumed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

from ftlib.errors import FtlibError, InputError
from ftlib.export.hub import Licence, licence_of, push, with_licence
from ftlib.files.atomic import write_json

# huggingface_hub 2.4 calls its HTTP client in a way that the client calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
LARGE = 1000  # bytes from which a file goes by LFS


class Hub(ThreadingHTTPServer):
    """Repositories, their files, and the large ones by hash. `cut` ends the connection of so many uploads."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.repos: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.uploads, self.cut = 0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Asked(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def _answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        repo = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main)?", self.path)
        found = self.server.repos.get(repo[1]) if repo else None
        if repo is None or found is None:
            self._answer({"error": "Repository not found"}, 404)
        else:
            told = {"id": repo[1], "private": found["private"], "sha": "0" * 40, "cardData": found.get("card")}
            self._answer(told)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.uploads += 1
        if self.server.cut:
            self.server.cut -= 1
            self._answer({"error": "storage is away"}, 400)
            return
        self.server.blobs[hashlib.sha256(content).hexdigest()] = content
        self._answer({})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/repos/create":
            self._create(json.loads(content))
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(content)["files"]
            modes = [{"path": f["path"], "uploadMode": "lfs" if f["size"] >= LARGE else "regular"} for f in files]
            self._answer({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(content)["objects"]
            self._answer({"transfer": "basic", "objects": [self._object(one) for one in objects]})
        elif "/commit/main" in self.path:
            self._commit(self.path.split("/api/models/")[1].split("/commit/")[0], content)
        else:
            self._answer({"error": self.path}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.server.repos
        self.server.repos.setdefault(name, {"private": asked.get("visibility") == "private", "files": {}})
        self._answer({"url": f"{self.server.url}/{name}", "id": name}, 409 if known else 200)

    def _object(self, one: dict[str, Any]) -> dict[str, Any]:
        there = {"upload": {"href": f"{self.server.url}/blob/{one['oid']}"}}
        return {**one, **({} if one["oid"] in self.server.blobs else {"actions": there})}

    def _commit(self, repo: str, content: bytes) -> None:
        for line in content.splitlines():
            told = json.loads(line)
            if told["key"] == "file":
                self.server.repos[repo]["files"][told["value"]["path"]] = base64.b64decode(told["value"]["content"])
            elif told["key"] == "lfsFile":
                assert told["value"]["oid"] in self.server.blobs
                self.server.repos[repo]["files"][told["value"]["path"]] = told["value"]["oid"]
        self._answer({"commitOid": "1" * 40, "commitUrl": f"{self.server.url}/{repo}/commit/{'1' * 40}"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As an export leaves one: two large files, a small one, the figures of its gate."""
    (tmp_path / "one.safetensors").write_bytes(b"1" * 5000)
    (tmp_path / "two.safetensors").write_bytes(b"2" * 6000)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\ntags:\n- ftlib\n---\n\n# It\n")
    write_json(tmp_path / "export.json", {"apart": 0.0, "to": "merged"})
    return tmp_path


APACHE = Licence("apache-2.0", "you")


def test_a_push_is_whole_private_and_says_the_licence(hub: Hub, folder: Path) -> None:
    assert push(folder, "me/it", APACHE) == f"{hub.url}/me/it"
    repo = hub.repos["me/it"]
    assert repo["private"] is True
    assert set(repo["files"]) == {path.name for path in folder.iterdir()}
    assert repo["files"]["README.md"].decode().startswith("---\nlicense: apache-2.0\ntags:\n")
    assert hub.blobs[repo["files"]["two.safetensors"]] == b"2" * 6000


def test_a_cut_push_goes_on_and_sends_nothing_twice(hub: Hub, folder: Path) -> None:
    hub.cut = 1
    with pytest.raises(FtlibError, match=r"me/it: the Hub did not take it: .*The same command goes on"):
        push(folder, "me/it", APACHE)
    assert hub.repos["me/it"]["files"] == {}
    came = hub.uploads
    push(folder, "me/it", APACHE)
    assert set(hub.repos["me/it"]["files"]) == {path.name for path in folder.iterdir()}
    assert hub.uploads == came + 1
    push(folder, "me/it", APACHE)
    assert hub.uploads == came + 1


def test_what_is_public_already_stays_out_of_reach(hub: Hub, folder: Path) -> None:
    push(folder, "me/it", APACHE, public=True)
    assert hub.repos["me/it"]["private"] is False
    with pytest.raises(InputError, match="is there already, and public"):
        push(folder, "me/it", APACHE)


def test_what_must_not_be_pushed(hub: Hub, folder: Path) -> None:
    for name in ("it", "me/../it", "../me", "me/it/more", "me/--it", "/it"):
        with pytest.raises(InputError, match="no name on the Hub"):
            push(folder, name, APACHE)
    with pytest.raises(InputError, match="cannot be public: nobody says the licence"):
        push(folder, "me/it", None, public=True)
    write_json(folder / "export.json", {"to": "merged"})
    with pytest.raises(InputError, match=r"has no export\.json of a gate that it passed"):
        push(folder, "me/it", APACHE)
    assert hub.repos == {}


def test_the_licence_is_the_bases(hub: Hub, tmp_path: Path) -> None:
    hub.repos["big/base"] = {"private": False, "files": {}, "card": {"license": "llama3.2"}}
    assert licence_of("big/base") == Licence("llama3.2", "big/base on the Hub")
    assert licence_of("big/nothing") is None
    assert licence_of(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n")
    (tmp_path / "LICENSE").write_text("MIT")
    assert licence_of(str(tmp_path)) == Licence("mit", f"the card in {tmp_path}", (tmp_path / "LICENSE",))
    assert licence_of(str(tmp_path), given="gemma") == Licence("gemma", "you", (tmp_path / "LICENSE",))


def test_a_card_without_a_head_gets_one() -> None:
    assert with_licence("# It\n", None) == "---\nlicense: unknown\n---\n\n# It\n"
