"""Names from elsewhere that are paths out of the folder they are brought to: at a URL, in an index, in an archive."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from ftlib.errors import FtlibError, InputError
from ftlib.files import object_store
from ftlib.files.paths import below
from ftlib.registry import backend, registry
from ftlib.run import mirror, remote_folders, remote_run
from ftlib.run.archive import pull_run, read_archive

from .conftest import made, put

BAD = [
    "",
    ".",
    "..",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "a/",
    "a/./b",
    "a\\..\\b",
    "C:/x",
    "c:x",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "a\x9bb",
    "a\u202eb",
    "a\ud800b",
    "x" * 250,
    "/".join("x" * 900),
    "a/" * 600 + "a",
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_no_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="s3://b holds ") as refused:
        below(tmp_path, name, "s3://b")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("name", ["a", "trials/000/status.json", ".hidden", "a..b", "größe/日本", "a b", "..."])
def test_a_plain_name_is_a_path(tmp_path: Path, name: str) -> None:
    assert below(tmp_path, name, "s3://b") == tmp_path / name


def test_a_link_on_the_way_is_not_gone_through(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trials").symlink_to(tmp_path)
    with pytest.raises(InputError, match="goes through a symbolic link"):
        below(tmp_path / "run", "trials/x", "s3://b")


TRICKS = [
    "trials/../../../registry/support/1/manifest.json",
    "trials/../../escaped/params.json",
    "trials/000/../../../../params.json",
    "trials/..//manifest.json",
    "trials/000/adapter.1-2/../../../../../escaped",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_reading_a_run_at_a_url_writes_nowhere_else(url: str, home: Path, tmp_path: Path, trick: str) -> None:
    run = made(url, tmp_path / "elsewhere")
    victim = home / "registry" / "support" / "1" / "manifest.json"
    victim.parent.mkdir(parents=True)
    victim.write_text("mine")
    place = f"{url}/{run.name}"
    for file in ("resolved.json", "experiment.yaml"):
        object_store.put(run.path / file, f"{place}/{file}")
    put(f"{place}/trials/000/index.json", json.dumps({"machine": "m", "directories": {"adapter": "adapter.1-2"}}))
    put(f"{place}/{trick}", "evil")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for read in (lambda: remote_run.open_run(place), lambda: pull_run(place, tmp_path / "pulled" / run.name, "all")):
        with pytest.raises(FtlibError, match="holds '"):
            read()
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert not {path for path in new if path.name not in ("machine", "key")}
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("marked", ["../../else", "adapter.1-2/../../x", "model.1-2", "/abs", "adapter.1-2\n"])
def test_an_index_names_directories_of_its_own(url: str, home: Path, marked: str) -> None:
    put(f"{url}/index.json", json.dumps({"machine": "m", "directories": {"adapter": marked}}))
    with pytest.raises(FtlibError, match="no directory of it|damaged"):
        remote_folders.pull_directories(url, home / "trial", ("adapter",))


@pytest.mark.parametrize("content", [b"", b"\0\0", b"[", b"[]", b'{"machine": 1}', b"[" * 10**5, b"\xff"])
def test_a_damaged_index_is_said(url: str, home: Path, content: bytes) -> None:
    put(f"{url}/index.json", content)
    with pytest.raises(FtlibError, match=r"index.json is damaged"):
        remote_folders.pull_directories(url, home / "trial", ("adapter",))


def test_a_driver_takes_nothing_over_from_outside_of_its_trials(url: str, home: Path, tmp_path: Path) -> None:
    run = made(url, tmp_path / "runs")
    keeper = mirror.Keeper(run, f"{url}/{run.name}")
    put(f"{url}/{run.name}/trials/../metrics.jsonl", "evil")
    with pytest.raises(FtlibError, match="holds '"):
        keeper._pull()
    assert not (run.path / "metrics.jsonl").exists()


@pytest.mark.parametrize("kind", ["name", "link", "device", "sparse"])
def test_an_archive_writes_nowhere_else(tmp_path: Path, kind: str) -> None:
    member = tarfile.TarInfo("trials/000/../../../outside" if kind == "name" else "x")
    member.type = {"link": tarfile.SYMTYPE, "device": tarfile.FIFOTYPE, "sparse": tarfile.GNUTYPE_SPARSE}.get(
        kind, tarfile.REGTYPE
    )
    member.linkname = "/etc/passwd"
    with tarfile.open(tmp_path / "bad.tar", "w") as out:
        out.addfile(member, io.BytesIO())
    digest = hashlib.sha256((tmp_path / "bad.tar").read_bytes()).hexdigest()
    with pytest.raises(FtlibError):
        read_archive(tmp_path / "bad.tar", digest, tmp_path / "here" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


def test_a_registry_at_a_url_writes_nowhere_else(
    url: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(backend.VARIABLE, url)
    put(f"{url}/current/evil.json", '{"version": 1, "history": [1]}')
    put(f"{url}/versions/evil/1.json", '{"files": "evil-1", "kind": "model"}')
    put(f"{url}/files/evil-1/model/../../../../../escaped", "evil")
    with pytest.raises(FtlibError, match="holds '"):
        _ = registry.resolve("evil").weights
    assert "escaped" not in {path.name for path in tmp_path.rglob("*")}
    for number in ("²", "٣", "1" * 5000, "-1", "01"):
        put(f"{url}/versions/evil/{number}.json", "{}")
    assert [version.number for version in registry.versions("evil")] == [1]


def test_a_run_of_the_same_name_elsewhere_does_not_replace_ours(url: str, home: Path, tmp_path: Path) -> None:
    ours = made(f"{url}/mine", home / "runs")
    place = f"{url}/theirs/{ours.name}"
    put(f"{place}/resolved.json", json.dumps({"experiment": {"storage": f"{url}/theirs"}}))
    before = (ours.path / "resolved.json").read_bytes()
    with pytest.raises(InputError, match="has its name"):
        remote_run.open_run(place)
    assert (ours.path / "resolved.json").read_bytes() == before
