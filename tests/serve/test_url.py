"""An endpoint whose registry is at an object store, in processes of its own with an empty home of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest

from ftlib.files import object_store
from ftlib.registry import backend, registry
from ftlib.run.directory import Run
from tests.remote.conftest import clean_environment
from tests.support.stores import BUCKET, s3_server

from .conftest import World, adapter_trial, free_port
from .test_life import until


@pytest.mark.matrix
def test_promoted_here_and_served_there(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promotion reaches it without a restart, and a store that is away leaves it as it is."""
    where, port = f"s3://{BUCKET}/registry", free_port()
    run = Run.create(tmp_path / "runs", "tiny", "", {})
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "desk"))
    monkeypatch.setenv(backend.VARIABLE, where)
    with s3_server(free_port()) as variables:
        for key, value in variables.items():
            monkeypatch.setenv(key, value)
        object_store._filesystem.cache_clear()
        served = {
            name: registry.register(run, adapter_trial(run, name, base, seed=seed), name)
            for seed, name in ((1, "one"), (2, "two"))
        }
        url = f"http://127.0.0.1:{port}"
        world = World(url, base, served, tmp_path, run)
        home = tmp_path / "server"
        home.mkdir()
        options = ["--port", str(port), "--api-key", "tiny-key"]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ftlib.cli", "serve", "one", "two", *options],
                env=clean_environment(home, **variables, FTLIB_REGISTRY=where, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1"),
                stdout=log,
                stderr=log,
            )
        try:
            client = world.client()

            def answers() -> bool:
                assert process.poll() is None, (tmp_path / "log").read_text()
                try:
                    return len(client.models.list().data) == 2
                except openai.APIError:  # nobody yet, or Serve without its application
                    return False

            until(answers, 120)

            def check() -> None:
                for name in served:
                    said = client.completions.create(model=name, prompt="the quick", max_tokens=8, temperature=0)
                    assert said.choices[0].text == world.reference(name, "the quick", 8)[0]
                    assert said.system_fingerprint == served[name].id

            check()
            served["one"] = registry.register(run, adapter_trial(run, "third", base, seed=3), "one")
            until(lambda: client.models.retrieve("one").root == "one@2")  # type: ignore[attr-defined]
            check()
            assert sorted(path.name for path in (home / "ftlib" / "cache" / "registry").glob("*/*/[0-9]*")) == [*"112"]
            weights = [version.weights for version in served.values()]  # here, before the store is gone
            assert all(folder.is_dir() for folder in weights)
            os.kill(_server_of(variables), signal.SIGSTOP)
            time.sleep(3)
            check()
            os.kill(_server_of(variables), signal.SIGCONT)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    object_store._filesystem.cache_clear()


def _server_of(variables: dict[str, str]) -> int:
    """The process that stands for the store."""
    import psutil

    port = variables["AWS_ENDPOINT_URL"].rpartition(":")[2]
    (found,) = [process for process in psutil.Process().children() if port in process.cmdline()]
    return int(found.pid)
