"""A head and a node that share no disk, and an S3-compatible server that both reach: what a trial needs finds it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftlib.files import object_store
from ftlib.run.directory import Run
from tests.conftest import may_unshare, write_experiment
from tests.remote.conftest import (
    Client,
    TokenCluster,
    clean_environment,
    end,
    free_ports,
    head,
    make_client,
    start_machine,
)
from tests.remote.test_jobs import SPACE, job_of, wait_until
from tests.support.stores import s3_server

POSSIBLE = may_unshare("--mount")
pytestmark = pytest.mark.skipif(not POSSIBLE, reason="no mount namespace of its own may be made here")


@dataclass
class Machines:
    cluster: TokenCluster
    node: subprocess.Popen[bytes]
    variables: dict[str, str]
    log: Path

    def lose_node(self) -> None:
        """As a cloud takes a machine: everything on it is gone at once."""
        import psutil

        family = psutil.Process(self.node.pid).children(recursive=True)
        self.node.kill()
        for process in family:
            process.kill()
        self.node.wait()
        self.node = start_machine(self.cluster, self.log)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("machines")
    with s3_server(port) as variables:
        with pytest.MonkeyPatch.context() as patch:
            for key, value in variables.items():
                patch.setenv(key, value)
            object_store._filesystem.cache_clear()
            home = folder / "home"
            home.mkdir()
            with head(home, "--num-cpus=0", **variables) as cluster:
                started = Machines(cluster, start_machine(cluster, folder / "node.log"), variables, folder / "node.log")
                try:
                    yield started
                finally:
                    end(started.node)
        object_store._filesystem.cache_clear()


@pytest.mark.matrix
def test_a_trial_goes_on_from_its_checkpoint_on_a_new_machine(
    machines: Machines, tree: dict[str, Any], tmp_path: Path, data_file: Path
) -> None:
    """Data at a URL, the base in the parcel, checkpoints at the URL; the machine is lost in the middle."""
    object_store.put(data_file, "s3://tests/in/colours.jsonl")
    tree["data"]["train"] = "s3://tests/in/colours.jsonl"
    tree["train"].update(num_train_epochs=24, eval_strategy="steps", eval_steps=16)
    section = {"space": SPACE, "num_samples": 1, "scheduler": {"type": "none"}, "pack": "off"}
    tree |= {"storage": "s3://tests/runs", "sweep": section}
    client = make_client(machines.cluster, tmp_path / "desk")
    status, output = client("submit", write_experiment(tmp_path / "x.yaml", tree))
    assert status == 0, output
    assert "storage is no URL" not in output
    job = job_of(output)
    url = f"s3://tests/runs/{job}"
    wait_until(lambda: "trials/000/index.json" in object_store.listing(url))
    lost = time.time()
    machines.lose_node()
    status, output = client("logs", job, "--follow")
    assert status == 0, client("logs", job)[1]
    status, output = client("pull", job, "--to", "here")  # over the cluster, without a key to the bucket
    assert status == 0, output
    run = Run.open(client.home / "here" / job)
    (trial,) = run.trials()
    assert trial.state == "finished"
    assert trial.weights is not None
    rows = [row for row in trial.metrics() if "loss" in row]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert any(row["time"] < lost for row in rows)  # not begun again
    assert [event["event"] for event in run.events()].count("trial_started") == 2
    assert run.trial("base").state == "finished"

    # another desk, with a key to the bucket and no cluster: reads and resumes by the URL
    desk = Client("", tmp_path / "other", clean_environment(tmp_path / "other", **machines.variables))
    desk.home.mkdir()
    for command in (["leaderboard", "s3://tests/runs/colours"], ["promote", url, "--as", "colours"]):
        status, output = local(desk, *command)
        assert status == 0, output
    status, output = local(desk, "pull", url, "--to", "here", "--weights", "best")
    assert status == 0, output
    assert (desk.home / "here" / job / "trials" / "000" / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.matrix
def test_a_packed_sweep_is_resumed_by_its_url(machines: Machines, tree: dict[str, Any], tmp_path: Path) -> None:
    """Its driver is killed; another job, of another desk, goes on from the URL."""
    tree["train"].update(num_train_epochs=10, eval_strategy="steps", eval_steps=16)
    section = {"space": SPACE, "num_samples": 3, "scheduler": {"type": "none"}, "baseline": False}
    tree |= {"storage": "s3://tests/packed", "sweep": section}
    client = make_client(machines.cluster, tmp_path / "desk")
    file = write_experiment(tmp_path / "x.yaml", tree)
    job = job_of(client("submit", file)[1])
    url = f"s3://tests/packed/{job}"
    wait_until(lambda: {"index.json", "trials/000/index.json"} <= set(object_store.listing(url)))
    kill_driver(job)
    local_run = Path(machines.cluster.environment["FTLIB_HOME"]) / "runs" / job
    os.rename(local_run, local_run.with_name("gone"))  # the driver's machine was lost too
    status, output = client("submit", file, "--resume", job, "--follow")
    assert status == 0, output
    assert "3/3 trials done" in output
    run = Run(local_run)
    assert [trial.state for trial in run.trials()] == ["finished"] * 3
    for trial in run.trials():
        steps = [row["step"] for row in trial.metrics() if "loss" in row]
        assert steps == sorted(set(steps))


def kill_driver(job: str) -> None:
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "ftlib.remote.entrypoint" in line and job in line:
            os.kill(process.pid, signal.SIGKILL)


def local(client: Client, *args: Any) -> tuple[int, str]:
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "ftlib.cli", *map(str, args)],
        env=client.variables,
        cwd=client.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stdout
