"""A registry at an object store, against a real S3-compatible server: what is brought, what is read again, what is cut
short."""

from __future__ import annotations

import hashlib
import os
import pickle
import secrets
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftlib.curate.blocks import to_rows, to_table
from ftlib.curate.rows import FROM, ID
from ftlib.curate.store import Store
from ftlib.errors import ConfigError, FtlibError
from ftlib.files import object_store
from ftlib.registry import backend, data_versions, lease, registry, store_backend
from ftlib.registry.folder_backend import FolderBackend
from ftlib.registry.lease import Lease
from ftlib.registry.store_backend import StoreBackend
from ftlib.registry.version import Version
from ftlib.run.directory import Run
from serve.front.catalog import Catalog
from tests.remote.conftest import free_ports
from tests.support.stores import BUCKET, s3_here

from .test_registry import trained


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3-compatible server."""
    with s3_here(*free_ports(1)) as variables:
        yield variables["AWS_ENDPOINT_URL"]


@pytest.fixture
def url(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an empty registry, which this machine uses."""
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(lease, "SETTLES", 0.1)
    where = f"s3://{BUCKET}/{secrets.token_hex(4)}"
    monkeypatch.setenv(backend.VARIABLE, where)
    return where


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs", "tiny", "", {})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the store from now on: "read current/support.json" and the like."""
    heard: list[str] = []
    for name in ("read", "listing", "get_folder"):

        def tell(where: str, *rest: object, name: str = name, call: object = getattr(object_store, name)) -> object:
            heard.append(f"{name} {'/'.join(where.split('/')[4:])}")
            return call(where, *rest)  # type: ignore[operator]

        monkeypatch.setattr(object_store, name, tell)
    return heard


# --- where it is ------------------------------------------------------------------------------------------------


def test_the_variable_is_a_path_or_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))
    for value in ("", "  "):
        monkeypatch.setenv(backend.VARIABLE, value)
        assert backend.given() == ""
        assert isinstance(place := backend.backend(), FolderBackend)
        assert place.root == tmp_path / "registry"
    monkeypatch.setenv(backend.VARIABLE, "somewhere/else")
    assert backend.given() == str(Path.cwd() / "somewhere" / "else")
    monkeypatch.setenv(backend.VARIABLE, "s3://bucket/registry/")
    assert isinstance(found := backend.backend(), StoreBackend)
    assert (found.url, backend.backend()) == ("s3://bucket/registry", found)


@pytest.mark.parametrize(("value", "said"), [("ftp://x/y", "use a path, s3://"), ("s3://ME:KEY@b/x", "not hold a key")])
def test_urls_that_are_none(value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, value)
    with pytest.raises(ConfigError, match=f"FTLIB_REGISTRY: .*{said}"):
        registry.names()


def test_a_registry_in_another_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(backend.VARIABLE, str(tmp_path / "shared"))
    assert registry.register(run, trained(run), "support").path == tmp_path / "shared" / "support" / "1"
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["key"]  # with which the version is signed


# --- versions, brought ------------------------------------------------------------------------------------------


def test_a_version_is_brought_to_every_machine_once(
    url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    sent = pickle.dumps(registry.register(run, trained(run, b=3), "support"))
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "another"))
    monkeypatch.delenv(backend.VARIABLE)  # a replica has the version, and no such setting
    backend.objects.cache_clear()
    version: Version = pickle.loads(sent)
    asked.clear()
    assert (version.kind, version.manifest["trial"], version.is_here) == ("adapter", "a", False)
    assert asked == ["read versions/support/1.json"]
    assert (version.weights / "adapter_model.safetensors").read_bytes() == (
        run.trial("a").path / "adapter" / "adapter_model.safetensors"
    ).read_bytes()
    assert version.path.is_relative_to(tmp_path / "another" / "cache" / "registry")
    assert version.is_here
    assert not (version.path / "manifest.json").stat().st_mode & 0o222
    asked.clear()
    backend.objects.cache_clear()
    assert version.weights.is_dir()
    assert asked == []


def test_files_that_were_removed_here_are_brought_again(url: str, run: Run) -> None:
    version = registry.register(run, trained(run), "support")
    shutil.rmtree(version.path)
    assert not version.is_here
    assert (version.weights / "adapter_model.safetensors").is_file()


def test_threads_that_want_a_version_at_once_bring_it_once(
    url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    version = registry.register(run, trained(run), "support")
    asked.clear()
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(version.weights)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 6
    assert len([call for call in asked if call.startswith("get_folder")]) == 1


def test_a_version_cut_short_on_its_way_here_is_not_there(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    version = registry.register(run, trained(run), "support")
    get_folder = object_store.get_folder

    def cut(where: str, folder: Path) -> None:
        get_folder(where, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(object_store, "get_folder", cut)
        with pytest.raises(KeyboardInterrupt):
            _ = version.path
    assert not version.is_here
    assert [path.name for path in backend.objects(url).here("support", 1).parent.iterdir()] == [".1.lock"]
    assert version.weights.is_dir()


def test_files_that_are_gone_are_said_and_not_asked_for_again_at_once(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    version = registry.register(run, trained(run), "support")
    object_store.remove(f"{url}/files/{version.manifest['files']}")
    for _ in range(2):
        with pytest.raises(FtlibError, match=r"the files of support@1 are gone from s3://"):
            _ = version.path
    assert len([call for call in asked if call.startswith("get_folder")]) == 1


def test_an_object_that_would_leave_its_folder_is_refused(url: str, run: Run, server: str) -> None:
    version = registry.register(run, trained(run), "support")
    below = url.removeprefix("s3://") + f"/files/{version.manifest['files']}"
    raw = urllib.request.Request(f"{server}/{below}/a/%2E%2E/%2E%2E/%2E%2E/x", data=b"x", method="PUT")
    urllib.request.urlopen(raw, timeout=10).close()
    with pytest.raises(FtlibError, match="leads out of its folder"):
        _ = version.path
    assert not version.is_here


def test_a_manifest_that_names_a_path_is_damaged(url: str, run: Run) -> None:
    registry.register(run, trained(run), "support")
    backend.objects.cache_clear()
    for content in (b"{", b"[]", b'{"files": "../../etc"}', b'{"files": 3}'):
        object_store.put_bytes(content, f"{url}/versions/support/1.json")
        with pytest.raises(FtlibError, match=r"versions/support/1\.json is damaged"):
            registry.current("support")


# --- promotions, cut short or at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(6))
def test_a_promotion_that_is_cut_short_is_no_version(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """At every write to the store. After the version's own object, it is there and whole, and the name does not mean
    it."""
    registry.register(run, trained(run), "support")
    writes: list[str] = []

    def cut(name: str, patch: pytest.MonkeyPatch) -> None:
        real = getattr(object_store, name)

        def write(what: object, where: str) -> None:
            writes.append(where.removeprefix(url + "/").partition("/")[0])
            if len(writes) > after:
                raise KeyboardInterrupt
            real(what, where)

        patch.setattr(object_store, name, write)

    with monkeypatch.context() as patch:
        cut("put_folder", patch)
        cut("put_bytes", patch)
        with pytest.raises(KeyboardInterrupt):
            registry.register(run, trained(run, b=2), "support")
    order = ["files", "locks", "numbers", "versions", "current", "locks"]
    assert writes[: after + 1] == order[: after + 1]
    assert registry.current("support").number == (1 if after < 5 else 2)
    for version in registry.versions("support"):
        assert version.weights.is_dir()
    assert len(registry.versions("support")) == (1 if after < 4 else 2)


def test_a_lock_is_one_holders(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLES", 1.0)  # a busy machine takes longer than a tenth of a second to write
    where, order = f"{url}/locks/x.json", list[str]()

    def hold(name: str) -> None:
        with Lease(where) as held:
            order.append(f"{name} has it")
            time.sleep(0.3)
            held.check()
            order.append(f"{name} gives it back")

    threads = [threading.Thread(target=hold, args=[str(number)]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(order) == 6
    assert all(
        one.partition(" ")[0] == other.partition(" ")[0] for one, other in zip(order[::2], order[1::2], strict=True)
    )


def test_a_lock_that_was_left_behind_is_taken_over(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{url}/locks/support.json"
    monkeypatch.setattr(lease, "HOLDS", 1.5)
    left = Lease(where).__enter__()  # its process died
    started = time.monotonic()
    registry.register(run, trained(run), "support")
    assert 1.0 < time.monotonic() - started < 50
    with pytest.raises(FtlibError, match="another process took .* over"):
        left.check()
    monkeypatch.setattr(lease, "HOLDS", 60.0)
    monkeypatch.setattr(lease, "PATIENCE", 0.5)
    with Lease(where), pytest.raises(FtlibError, match=r"process \d+ on .* has held s3://.* for too long"):
        registry.rollback("support")


def test_who_lost_the_lock_moves_nothing(url: str, run: Run) -> None:
    registry.register(run, trained(run), "support")
    with backend.backend().moving("support") as move:
        object_store.put_bytes(b'{"holder": "other", "until": 1e12, "who": "another"}', f"{url}/locks/support.json")
        with pytest.raises(FtlibError, match="another process took"):
            move({"version": 9, "history": [9]})
    assert registry.current("support").number == 1


def test_a_number_that_another_took_in_spite_of_the_lock_stays_its(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a write comes late: it is seen, and the next number is taken."""
    read, spoilt = object_store.read, list[str]()

    def late(where: str) -> bytes | None:
        if where.endswith("versions/support/1.json") and not spoilt:
            spoilt.append(where)
            object_store.put_bytes(b'{"files": "support-of-another"}', where)
        return read(where)

    monkeypatch.setattr(object_store, "read", late)
    assert registry.register(run, trained(run), "support").number == 2
    assert registry.current("support").weights.is_dir()


# --- following it -----------------------------------------------------------------------------------------------


def test_what_has_not_changed_is_not_read_again(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.setattr(store_backend, "RACY", 0.0)
    for name in ("support", "sql"):
        registry.register(run, trained(run), name)
    assert sorted(registry.aliases()) == ["sql", "support"]
    registry.aliases()
    asked.clear()
    registry.aliases()
    assert asked == ["listing current"]
    time.sleep(1.1)  # a store's clock counts seconds
    registry.register(run, trained(run), "support")
    asked.clear()
    found = registry.aliases()["support"]
    assert isinstance(found, registry.Alias)
    assert found.version.id == "support@2"
    assert asked == ["listing current", "read current/support.json", "read versions/support/2.json"]


def test_two_changes_in_one_second_are_both_seen(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same size and with the same time, as a store has it that counts in seconds."""
    monkeypatch.setattr(StoreBackend, "_listed", lambda self: {"support": (64, 0)})
    registry.register(run, trained(run), "support")
    registry.register(run, trained(run), "support", canary=0.1)
    for share in (0.1, 0.2, 0.3):
        registry.canary("support", share)
        found = registry.aliases()["support"]
        assert isinstance(found, registry.Alias)
        assert found.share == share


def test_a_store_that_is_away_leaves_what_is_served(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register(run, trained(run), "support")
    catalog = Catalog([], lambda version: version.path.is_dir())
    catalog.refresh()
    assert catalog.route("support").id == "support@1"
    monkeypatch.setattr(store_backend, "PATIENCE", 0.1)
    back = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    object_store._filesystem.cache_clear()
    caplog.clear()
    for _ in range(2):
        catalog.refresh()
    assert catalog.route("support").weights.is_dir()
    assert [record.getMessage() for record in caplog.records if "served as it was" in record.getMessage()] == [
        *[text for text in {record.getMessage() for record in caplog.records} if "has not answered" in text]
    ]
    with pytest.raises(FtlibError, match="has not answered for 0 s"):
        Catalog([]).refresh()
    monkeypatch.setenv("AWS_ENDPOINT_URL", back)
    object_store._filesystem.cache_clear()
    registry.register(run, trained(run), "support")
    catalog.refresh()
    assert catalog.route("support").id == "support@2"


def test_data_has_versions_at_a_url_too(url: str, tmp_path: Path) -> None:
    def fill(folder: Path) -> dict[str, Any]:
        (folder / "train.jsonl").write_text('{"text": "a"}\n')
        sha256 = hashlib.sha256((folder / "train.jsonl").read_bytes()).hexdigest()
        return {"data": {"train.jsonl": {"rows": 1, "bytes": 14, "sha256": sha256}}, "recipe": {}}

    first = data_versions.register("tickets", fill, lambda told: "# tickets\n")
    assert data_versions.register("tickets", fill, lambda told: "") == first
    assert first.id == "tickets@1"
    file = data_versions.resolve("data:tickets").file("train")
    assert file is not None
    assert file.is_relative_to(tmp_path / "home")
    assert file.read_text() == '{"text": "a"}\n'
    assert backend.backend().names() == []  # names of models are others


def test_blocks_of_a_recipe_can_lie_at_a_url(url: str) -> None:
    store = Store(f"{url}/blocks")
    assert store.about("ab") is None
    store.put("ab", to_table([{ID: "1", FROM: "x:1", "text": "a"}]), {"rows": 1})
    assert store.about("ab") == {"rows": 1}
    assert to_rows(store.get("ab")) == [{ID: "1", FROM: "x:1", "text": "a"}]
    with pytest.raises(FtlibError, match="is gone while it is needed"):
        store.get("cd")
