"""Submit, follow, stop, pull and resume, against a cluster that asks for a token, from processes that share only
that."""

import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftlib.remote import jobs
from ftlib.remote.jobs import Cluster
from ftlib.run.directory import ENDED, Run
from tests.conftest import write_experiment
from tests.remote.conftest import Client, TokenCluster

SPACE = {"train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True}}
PLANTED = "pl4nted" * 6  # as long as W&B's keys


def sweep_file(tree: dict[str, Any], folder: Path, **section: Any) -> Path:
    section = {"space": SPACE, "num_samples": 2, "scheduler": {"type": "none"}, "baseline": False, **section}
    return write_experiment(folder / "x.yaml", {**tree, "storage": "runs", "sweep": section})


def job_of(output: str) -> str:
    return next(line.split()[1] for line in output.splitlines() if line.startswith("job "))


def wait_until(true: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_submit_follow_pull(cluster: TokenCluster, client: Client, tree: dict[str, Any], base: Path) -> None:
    status, output = client("submit", sweep_file(tree, client.home), "--follow")
    assert status == 0, output
    job = job_of(output)
    assert "2/2 trials done" in output
    assert "storage is no URL" in output
    status, listed = client("jobs")
    assert "succeeded" in next(line for line in listed.splitlines() if job in line)
    assert "2/2 trials done" in client("logs", job)[1]
    status, output = client("pull", job, "--to", "here")
    assert status == 0, output
    run = Run.open(client.home / "here" / job)
    assert [trial.state for trial in run.trials()] == ["finished"] * 2
    assert (run.path / "leaderboard.csv").read_text().count("finished") == 2
    assert all((trial.path / "adapter" / "adapter_model.safetensors").exists() for trial in run.trials())
    assert run.trials()[0].manifest["base"]["name_or_path"] == str(base)  # serves here as it would there
    assert not list(run.path.glob("trials/*/checkpoint"))
    # The job that packed it is stopped, and takes it away as it ends.
    wait_until(lambda: not list(cluster.temp.rglob("ftlib-*.tar")))
    assert f"{job}-pull" not in client("jobs")[1]


def test_stop_and_resume_with_a_secret(cluster: TokenCluster, client: Client, tree: dict[str, Any]) -> None:
    tree["train"].update(num_train_epochs=30, eval_strategy="steps", eval_steps=8)
    tree["track"]["wandb"] = {"project": "x"}
    file = sweep_file(tree, client.home, pack="off", max_concurrent_trials=1)
    secrets = {"WANDB_API_KEY": PLANTED, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    named = [part for name in secrets for part in ("--secret", name)]
    status, submitted = client("submit", file, *named, **secrets)
    assert status == 0, submitted
    job = job_of(submitted)
    run = Run(cluster.runs / job)
    wait_until(lambda: run.path.exists() and any(trial.checkpoint for trial in run.trials()))
    shown = "".join(" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    status, output = client("stop", job)
    assert status == 0, output
    assert {trial.state for trial in run.trials()} - set(ENDED) == {"preempted"}  # the first may have ended by then
    log = client("logs", job)[1]
    assert "interrupted with" in log
    assert "W&B cannot be reached" in log  # so the driver has the key
    assert "Traceback" not in log
    status, resumed = client("submit", file, "--resume", job, "--follow", *named, **secrets)
    assert status == 0, resumed
    assert [trial.state for trial in run.trials()] == ["finished"] * 2
    for trial in run.trials():
        steps = [row["step"] for row in trial.metrics() if "loss" in row]
        assert steps == sorted(set(steps))
    assert [event["event"] for event in run.events()].count("resumed") == 1

    listing = read(f"{cluster.address}/api/jobs/", cluster.token)
    assert job in listing
    for text in (shown, submitted, output, log, resumed, listing):
        assert PLANTED not in text
    for folder in (cluster.temp, cluster.home, client.home):
        assert [file for file in folder.rglob("*") if file.is_file() and PLANTED.encode() in file.read_bytes()] == []


def read(url: str, token: str) -> str:
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.parametrize("command", ["submit", "jobs", "logs", "stop", "pull"])
def test_without_the_token_it_is_one_sentence(
    cluster: TokenCluster, client: Client, tree: dict[str, Any], command: str
) -> None:
    what = {"submit": [sweep_file(tree, client.home)], "jobs": []}.get(command, ["some-job"])
    (client.home / "token").unlink()
    status, output = client(command, *what)
    assert status == 2
    assert output.startswith(f"error: {cluster.address} asks for a token, and there is none: put it into ")
    assert output.count("\n") == 1


def test_what_a_cluster_says_of_itself(cluster: TokenCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.token)
    there = Cluster(cluster.address)
    assert not there.is_open()
    assert there._has_drivers()  # so drivers go where the resource `driver` is


def test_a_job_waits_for_the_agent_of_a_cluster_that_has_just_started(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["status code 500: No available agent to submit job, please try again later.."] * 2)

    def submit() -> None:
        for answer in answers:
            raise RuntimeError(answer)

    jobs._once_agent_comes(submit)
    assert next(answers, None) is None
    monkeypatch.setattr(jobs, "STARTS", 0.0)
    answers = iter(["No available agent"] * 2)
    with pytest.raises(RuntimeError, match="No available agent"):
        jobs._once_agent_comes(submit)

    def refused() -> None:
        raise RuntimeError("a working_dir of 600 MiB is too large")

    with pytest.raises(RuntimeError, match="too large"):
        jobs._once_agent_comes(refused)


def test_a_wrong_token_and_a_wrong_address(cluster: TokenCluster, client: Client) -> None:
    status, output = client("jobs", RAY_AUTH_TOKEN="another")
    assert (status, output.count("\n")) == (2, 1)
    assert "refuses this token" in output
    client.address = "http://127.0.0.1:9"
    status, output = client("jobs")
    assert (status, output.count("\n")) == (1, 1)
    assert "nothing answers at http://127.0.0.1:9" in output


def test_a_job_that_is_not_there(client: Client) -> None:
    status, output = client("logs", "colors-20260101-000000-abcd")
    assert (status, output.count("\n")) == (2, 1)
    assert "there is no job" in output
