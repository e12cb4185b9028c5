"""Runs whose storage is a URL, on one machine, against a real S3-compatible server."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.errors import ConfigError, FtlibError, TrialError
from ftlib.files import object_store
from ftlib.files.home import home
from ftlib.run import remote_folders as states
from ftlib.run import trial_transfer
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from tests.conftest import write_experiment
from tests.remote.conftest import free_ports
from tests.support.stores import BUCKET, gs_server, s3_server

PBT = {
    "space": {"train.learning_rate": {"min": 1e-3, "max": 1e-2}},
    "search": {"type": "random"},
    "scheduler": {"type": "pbt"},
}


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a bucket: each test of it runs against both stores."""
    (port,) = free_ports(1)
    server = s3_server if request.param == "s3" else gs_server
    with server(port) as variables, pytest.MonkeyPatch.context() as patch:
        for key, value in variables.items():
            patch.setenv(key, value)
        object_store._filesystem.cache_clear()
        yield f"{request.param}://{BUCKET}"
    object_store._filesystem.cache_clear()


def test_a_whole_directory_is_there_or_the_one_before(store: str, tmp_path: Path) -> None:
    folder, url = tmp_path / "trial", f"{store}/whole"
    for generation in range(3):
        checkpoint = folder / "checkpoint"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / f"only-{generation}").write_text(str(generation))
        states.push(folder, url, ("checkpoint", "adapter"), {})
        states.pull_directories(url, tmp_path / "pulled", ("checkpoint", "adapter"))
        assert sorted(file.name for file in (tmp_path / "pulled" / "checkpoint").iterdir()) == [
            f"only-{number}" for number in range(generation + 1)
        ]
    assert len({name.partition("/")[0] for name in object_store.listing(url)}) == 2  # the index and one generation


def test_what_a_kill_has_left_is_collected(store: str, tmp_path: Path) -> None:
    folder, url = tmp_path / "trial", f"{store}/orphans"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "a").write_text("x")
    object_store.put_bytes(b"half", f"{url}/checkpoint.1-2/a")
    object_store.put_bytes(b"another's", f"{url}/adapter.1-2/a")
    states.push(folder, url, ("checkpoint",), {})
    assert {name.partition(".")[0] for name in object_store.listing(url)} == {"index", "checkpoint", "adapter"}
    assert f"{url}/checkpoint.1-2/a" not in object_store.listing(url)
    assert sum(name.startswith("checkpoint") for name in object_store.listing(url)) == 1


def test_a_push_cut_short_leaves_the_old(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, url = tmp_path / "trial", f"{store}/short"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "a").write_text("old")
    states.push(folder, url, ("checkpoint",), {})
    (folder / "checkpoint" / "a").write_text("new")
    (folder / "checkpoint" / "b").write_text("new")

    def put_folder(folder: Path, where: str) -> None:
        object_store.put(folder / "a", f"{where}/a")
        raise KeyboardInterrupt

    monkeypatch.setattr(object_store, "put_folder", put_folder)
    with pytest.raises(KeyboardInterrupt):
        states.push(folder, url, ("checkpoint",), {})
    states.pull_directories(url, tmp_path / "pulled", ("checkpoint",))
    assert [file.read_text() for file in (tmp_path / "pulled" / "checkpoint").iterdir()] == ["old"]


def test_a_store_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers at first, then a server does, then it is gone."""
    monkeypatch.setattr(object_store, "AT_FIRST", 0.05)
    heard: list[str] = []
    port, none = free_ports(2)
    url = f"s3://{BUCKET}/late"

    def write() -> None:
        with object_store.telling(heard.append):
            object_store.put_bytes(b"late", url)

    with s3_server(port) as variables:
        for key, value in {**variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{none}"}.items():
            monkeypatch.setenv(key, value)
        object_store._filesystem.cache_clear()
        thread = threading.Thread(target=write)
        thread.start()
        deadline = time.monotonic() + 300
        while not heard and time.monotonic() < deadline:
            time.sleep(0.05)
        monkeypatch.setenv("AWS_ENDPOINT_URL", variables["AWS_ENDPOINT_URL"])
        thread.join(timeout=60)
        assert object_store.read(url) == b"late"
    assert len(heard) == 1
    assert "NETWORK_CONNECTION" in heard[0]
    monkeypatch.setattr(object_store, "PATIENCE", 0.2)
    with pytest.raises(FtlibError, match="s3://tests/late has not answered for 0 s"):
        object_store.read(url)
    object_store._filesystem.cache_clear()


@pytest.mark.matrix
def test_a_packed_run_goes_on_by_its_url_after_its_driver_and_its_disk_were_lost(
    store: str, tree: dict[str, Any], tmp_path: Path
) -> None:
    """Killed once a trial has finished and the URL knows it, while others train; `ftlib resume` of the URL."""
    tree["train"].update(num_train_epochs=30, eval_strategy="steps", eval_steps=16)
    space = {"train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True}}
    tree["sweep"] = {"space": space, "num_samples": 6, "scheduler": {"type": "none"}, "baseline": False, "pack": 2}
    tree["storage"] = f"{store}/driver"

    def start(*arguments: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ftlib.cli", *map(str, arguments)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    driver = start("sweep", write_experiment(tmp_path / "x.yaml", tree))
    finished: list[str] = []
    while not finished:
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.5)
        states = [name for name in object_store.listing(tree["storage"]) if name.endswith("/status.json")]
        finished = [name for name in states if b'"finished"' in (object_store.read(f"{tree['storage']}/{name}") or b"")]
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    name = finished[0].partition("/")[0]
    before = object_store.read(f"{tree['storage']}/{finished[0].replace('status.json', 'metrics.jsonl')}")
    (home() / "runs" / name).rename(tmp_path / "lost")
    assert any(trial.state == "running" for trial in Run(tmp_path / "lost").trials())

    driver = start("resume", f"{tree['storage']}/{name}")
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    run = Run(home() / "runs" / name)
    assert [trial.state for trial in run.trials()] == ["finished"] * 6
    for trial in run.trials():
        steps = [row["step"] for row in trial.metrics() if "loss" in row]
        assert steps == sorted(set(steps))
        assert steps[-1] == 8 * 30
    assert object_store.read(f"{tree['storage']}/{finished[0].replace('status.json', 'metrics.jsonl')}") == before
    assert any(event["event"] == "trial_continued" for event in run.events())


def test_a_bucket_that_is_not_there_is_said_at_once(store: str) -> None:
    with pytest.raises(FtlibError, match=r"refuses: .*bucket"):
        object_store.put_bytes(b"x", f"{store.partition(':')[0]}://nobody/x")


def test_a_run_on_another_machines_disk_is_said(tree: dict[str, Any], tmp_path: Path) -> None:
    setting = Setting(run=str(tmp_path / "elsewhere"), data="x", resolved=tree)
    with pytest.raises(TrialError, match="is not on this machine: set storage to a URL"):
        trial_transfer.download(setting, "000")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scale": {"strategy": "ddp", "num_workers": 2}}, "the workers of strategy 'ddp' write one checkpoint"),
        ({"sweep": PBT}, "population-based training hands"),
    ],
)
def test_what_needs_a_shared_folder_is_refused(tree: dict[str, Any], change: dict[str, Any], said: str) -> None:
    Experiment.parse({**tree, **change})
    with pytest.raises(ConfigError, match=f"storage is a URL, but .*{said}.*a folder that all nodes share"):
        Experiment.parse({**tree, **change, "storage": "s3://bucket/runs"})


@pytest.mark.parametrize(
    ("storage_url", "said"),
    [
        ("ftp://x/y", "use a path, s3://BUCKET/"),
        ("s3://", "use a path, s3://BUCKET/"),
        ("s3://KEY:SECRET@bucket/x", "must not hold a key"),
    ],
)
def test_urls_that_cannot_be_used(tree: dict[str, Any], storage_url: str, said: str) -> None:
    tree["storage"] = storage_url
    with pytest.raises(ConfigError, match=said) as error:
        Experiment.parse(tree)
    assert "SECRET" not in str(error.value)


def test_data_that_is_not_there(store: str) -> None:
    with pytest.raises(ConfigError, match="data.train: there is nothing at"):
        object_store.local_copy("data.train", f"{store}/none.jsonl")


def test_an_object_that_is_replaced_while_it_is_read_is_read_whole(store: str) -> None:
    url, over, wrong = f"{store}/replaced", threading.Event(), list[bytes]()

    def replace() -> None:
        for number in itertools.takewhile(lambda _: not over.is_set(), itertools.count(100_000)):
            object_store.put_bytes(b"<%d" % number + b"x" * (3000 if number % 2 else 3) + b">", url)

    object_store.put_bytes(b"<>", url)
    writer = threading.Thread(target=replace)
    writer.start()
    for _ in range(100):
        content = object_store.read(url) or b""
        if not (content.startswith(b"<") and content.endswith(b">")):
            wrong.append(content)
    over.set()
    writer.join()
    assert wrong == []
