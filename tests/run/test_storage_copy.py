"""A storage at a URL, shown by `ftlib ui`: against a real S3-compatible server."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ftlib.errors import InputError
from ftlib.files import object_store
from ftlib.files.json_files import append_row
from ftlib.report import live_runs
from ftlib.report.live_page import served
from ftlib.report.live_runs import Runs
from ftlib.run import layout
from ftlib.run.directory import Run
from ftlib.run.storage_copy import FRESH, StorageCopy, copied, source_of
from serve.front.connection import Connection
from tests.remote.conftest import free_ports
from tests.report.runs import event, make_run
from tests.support.stores import BUCKET, s3_here


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with s3_here(free_ports(1)[0]):
        yield f"s3://{BUCKET}"


@pytest.fixture
def stored(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Run]:
    """The URL of a storage, and a run that has not ended, with a checkpoint and an object of a stranger."""
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(live_runs, "REST", 0)
    (tmp_path / "there").mkdir()
    url, run = f"{store}/{tmp_path.name}", make_run(tmp_path / "there", 2)
    lines = (run.path / layout.EVENTS).read_text().splitlines(keepends=True)
    (run.path / layout.EVENTS).write_text("".join(lines[:-1]))
    (run.trial("000").path / "checkpoint").mkdir()
    (run.trial("000").path / "checkpoint" / "weights").write_text("large")
    object_store.put_folder(run.path, f"{url}/{run.name}")
    object_store.put_bytes(b"x", f"{url}/.data/report.json")
    return url, run


def told(runs: Runs) -> dict[str, Any]:
    (one,) = json.loads(runs.overview())["runs"]
    return dict(one)


def test_a_copy_follows_what_is_there(stored: tuple[str, Run]) -> None:
    url, run = stored
    copy = StorageCopy(url)
    copy.look()
    here = Run(copy.folder / run.name)
    assert source_of(here) == f"{url}/{run.name}"
    assert here.trial("000").metrics() == run.trial("000").metrics()
    assert not list(copy.folder.glob("**/checkpoint*"))
    assert not (copy.folder / ".data").exists()
    runs = Runs(copy.folder, url)
    assert (told(runs)["state"], json.loads(runs.overview())["folder"]) == ("running", url)
    append_row(run.path / layout.EVENTS, event(999, "ended", states={}))
    object_store.put(run.path / layout.EVENTS, f"{url}/{run.name}/{layout.EVENTS}")
    before = (here.path / layout.RESOLVED).stat().st_ino
    copy.look()
    assert told(runs)["state"] == "finished"
    assert (here.path / layout.RESOLVED).stat().st_ino == before  # what has not changed is not brought
    object_store.remove(f"{url}/{run.name}")
    object_store.put_bytes(b"{}", f"{url}/other/{layout.RESOLVED}")
    copy.look()
    assert not here.path.exists()


def test_a_run_that_has_not_changed_for_long_is_broken_off(stored: tuple[str, Run]) -> None:
    copy = StorageCopy(stored[0])
    copy.look()
    for file in copy.folder.rglob("*"):
        os.utime(file, (time.time() - FRESH - 1,) * 2)
    assert told(Runs(copy.folder, copy.url))["state"] == "broken off"
    assert "its driver is gone" in told(Runs(copy.folder, copy.url))["why"]


def test_the_page_shows_it_and_sends_no_command(stored: tuple[str, Run]) -> None:
    url, run = stored
    with copied(url, pytest.fail) as folder, served(folder, http=Connection, url=url) as at, httpx.Client() as client:
        client.get(at, follow_redirects=True)
        root = at.partition("?")[0]
        shown = client.get(f"{root}api/runs/{run.name}").json()
        assert (shown["state"], shown["path"]) == ("running", f"{url}/{run.name}")
        assert {deed for line in shown["lines"] for deed in line["deeds"]} == set()
        asked = {"do": "stop", "trial": "000", "changes": []}
        heard = client.post(f"{root}api/runs/{run.name}/ask", json=asked, headers={"origin": root.rstrip("/")}).json()
        assert heard["sentence"].endswith("steer it on the machine where its driver runs.")


def test_a_url_without_a_run_is_refused(store: str) -> None:
    with pytest.raises(InputError, match="has no run: give what `storage:` names"), copied(f"{store}/none", print):
        pass
