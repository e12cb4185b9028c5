"""A cluster seen from outside, through Ray's Jobs API: submit, list, follow, stop, fetch. Needs its address and token.

A job is the driver of one run, and both have one name. Everything goes over the dashboard's port, so that a tunnel to
it is all that a client needs; results come through the log service, the one way in which Ray gives out a file's bytes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from ftlib.cluster.ray_private import put_package
from ftlib.cluster.token import find_token, headers, token_file
from ftlib.cluster.vault import MARK
from ftlib.errors import FtlibError, InputError, nearest
from ftlib.files.urls import is_url
from ftlib.remote.parcel import Parcel
from ftlib.remote.sealed import KEY, box, seal
from ftlib.run.archive import READY, read_archive
from ftlib.run.directory import Run

OURS = "ftlib"  # the key of a job's metadata that says it is a run; its value is the version
AGAIN = re.compile(r"\.r\d+$")  # what the job that resumes a run adds to its name
DRIVER = "driver"  # the custom resource of nodes that drivers may run on, where a cluster has such
STOP = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}  # a Ctrl-C: the run can be resumed
WANDB_SAYS = ("WANDB_MODE", "WANDB_DISABLED", "WANDB_BASE_URL")  # where data may go holds for the job too
NO_AGENT = "No available agent"  # Ray's words, in the answer of status 500 (ray/dashboard/modules/job/job_head.py)
STARTS = 60.0  # seconds for the agent of a cluster's head to come, once its dashboard answers
WAITS = 600.0  # seconds for a job to begin: a node may have to come for its driver


@dataclass(frozen=True)
class Job:
    """A job of the cluster that is a run of ftlib."""

    id: str
    state: str
    started: float | None
    ended: float | None
    storage: str
    node: str | None

    @property
    def run(self) -> str:
        return AGAIN.sub("", self.id)


class Cluster:
    """The cluster whose dashboard is at `address`. Every method raises InputError where it refuses the token, and
    FtlibError where it does not answer."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        if not re.match(r"https?://", self.address):
            raise InputError(f"--address {address}: give the dashboard's, as in http://127.0.0.1:8265.")
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.headers = headers(find_token())
        with self._asking():
            self._client = JobSubmissionClient(self.address, headers=dict(self.headers))

    # --- what can be asked ------------------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Whether the cluster answers without a token."""
        with self._asking():
            return bool(requests.get(f"{self.address}/api/jobs/", timeout=30).status_code == 200)

    def submit(
        self,
        parcel: Parcel,
        job: str,
        storage: str,
        *,
        resumes: str | None = None,
        trust: bool = False,
        secrets: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts the job `job`, or one that resumes the run `resumes`, also where another cluster made it (`trust`).
        Secrets are handed over once it has begun.

        `storage` is the experiment's; `options` are added to the job's runtime environment.
        """
        verb = f"run {job} {job}" if resumes is None else f"resume {resumes} {job}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "parcel.zip"
            parcel.write(file)
            env = _environment(str(file), bool(secrets), options or {})
            self._start(verb + " --secrets" * bool(secrets) + " --trust" * trust, job, env, {"storage": storage})
        if secrets:
            self._hand_over(job, secrets)

    def jobs(self) -> list[Job]:
        """The jobs that are runs of ftlib, oldest first."""
        with self._asking():
            found = self._client.list_jobs()
        ours = [
            _job(details) for details in found if OURS in (details.metadata or {}) and "storage" in details.metadata
        ]
        return sorted(ours, key=lambda job: job.started or 0)

    def job(self, name: str) -> Job:
        """The newest job of a run, by the run's name or the job's. Raises InputError, with the nearest name, for
        none."""
        found = self.jobs()
        for job in reversed(found):
            if name in (job.id, job.run):
                return job
        raise InputError(f"there is no job '{name}' at {self.address}.{nearest(name, [job.id for job in found])}")

    def logs(self, job: str) -> str:
        """All that the job has printed."""
        with self._asking():
            text: str = self._client.get_job_logs(job)
        return text

    def follow(self, job: str, say: Callable[[str], None]) -> str:
        """Hands on what the job prints until it ends; its last state. Whoever leaves this leaves the job running."""

        async def tail() -> None:
            async for text in self._client.tail_job_logs(job):
                say(text)

        with self._asking():
            asyncio.run(tail())
        return self.job(job).state

    def stop(self, job: str) -> None:
        """Asks the job to end as a Ctrl-C would, and waits for it."""
        with self._asking():
            self._client.stop_job(job)
            while not self._client.get_job_status(job).is_terminal():
                time.sleep(0.3)

    def fetch(self, job: Job, target: Path, weights: str, code: Parcel) -> Run:
        """The run of a job as a run directory here. `code` is a parcel without inputs: a second job packs the run on
        the machine that the first had, or on any where the run is at a URL."""
        helper = f"{job.run}-pull-{time.time_ns():x}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "code.zip"
            code.write(file)
            env = _environment(str(file), False, {})
            node = None if is_url(job.storage) else job.node
            self._start(f"archive {job.run} {helper} {shlex.quote(job.storage)} {weights}", helper, env, {}, node)
            try:
                told = json.loads(self._said(helper, READY))
                tar = Path(folder) / "run.tar"
                self._download(told["node"], told["file"], tar)
                return read_archive(tar, told["sha256"], target)
            finally:
                self._forget(helper)

    # --- how ---------------------------------------------------------------------------------------------------

    def _start(
        self, arguments: str, job: str, env: dict[str, Any], metadata: dict[str, str], node: str | None = None
    ) -> None:
        from ftlib.run.context import versions

        place: dict[str, Any] = {}
        if node is not None:
            place["entrypoint_label_selector"] = {"ray.io/node-id": node}
        elif self._has_drivers():
            place["entrypoint_resources"] = {DRIVER: 1}
        with self._asking():
            _once_agent_comes(
                lambda: self._client.submit_job(
                    entrypoint=f"python -m ftlib.remote.entrypoint {arguments}",
                    submission_id=job,
                    runtime_env=env,
                    metadata={OURS: versions()["ftlib"], **metadata},
                    **place,
                )
            )

    def _has_drivers(self) -> bool:
        """Whether some node says that drivers belong there: our cluster files keep them off spot nodes so."""
        with self._asking():
            answer = requests.get(f"{self.address}/api/v0/nodes", {"detail": "1"}, headers=self.headers, timeout=30)
        nodes = answer.json()["data"]["result"]["result"]
        return any(DRIVER in (node.get("resources_total") or {}) for node in nodes if node["state"] == "ALIVE")

    def _hand_over(self, job: str, secrets: Mapping[str, str]) -> None:
        sealed = seal(secrets, self._said(job, KEY))
        with self._asking():
            put_package(self._client, box(job), sealed)

    def _said(self, job: str, beginning: str) -> str:
        """The rest of the first line of the job's log that begins so. Raises FtlibError where the job ends without."""
        deadline = time.monotonic() + WAITS
        while time.monotonic() < deadline:
            with self._asking():
                state = self._client.get_job_status(job)
            for line in self.logs(job).splitlines():
                if line.startswith(beginning):
                    return line.removeprefix(beginning)
            if state.is_terminal():
                raise FtlibError(f"job {job} ended at once: {self._why(job)}")
            time.sleep(0.3)
        raise FtlibError(f"job {job} has not begun within {WAITS:.0f} s: see 'ftlib logs {job}', or stop it.")

    def _why(self, job: str) -> str:
        lines = [line for line in self.logs(job).splitlines() if line.strip()]
        return next((line.removeprefix("error: ") for line in reversed(lines) if "error" in line), "it said nothing.")

    def _download(self, node: str, file: str, target: Path) -> None:
        asked = {"node_id": node, "filename": file, "lines": "-1", "timeout": "3600"}
        with self._asking():
            answer = requests.get(
                f"{self.address}/api/v0/logs/file", asked, headers=self.headers, stream=True, timeout=60
            )
            answer.raise_for_status()
            with target.open("wb") as out:
                for chunk in answer.iter_content(2**20):
                    out.write(chunk)

    def _forget(self, job: str) -> None:
        """Ends a helper and takes it off the list."""
        self.stop(job)
        with self._asking():
            self._client.delete_job(job)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turns what Ray's client raises into a sentence."""
        try:
            yield
        except AuthenticationError:
            if self.headers:
                raise InputError(f"{self.address} refuses this token: is {token_file()} of that cluster?") from None
            raise InputError(
                f"{self.address} asks for a token, and there is none: put it into {token_file()}, or set "
                "RAY_AUTH_TOKEN."
            ) from None
        except (ConnectionError, requests.exceptions.RequestException, aiohttp.ClientError) as error:
            raise FtlibError(
                f"nothing answers at {self.address} ({type(error).__name__}): is the tunnel up ('ftlib cluster "
                "dashboard')?"
            ) from None
        except RuntimeError as error:
            raise FtlibError(f"{self.address}: {str(error).strip().splitlines()[-1]}") from None


def _once_agent_comes(submit: Callable[[], Any]) -> None:
    """A cluster that has just started answers before the agent of its head, which takes the jobs, is there."""
    deadline = time.monotonic() + STARTS
    while True:
        try:
            submit()
            return
        except RuntimeError as error:
            if NO_AGENT not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.3)


def _environment(working_dir: str, secrets: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    marked = {MARK: "1"} if secrets else {}
    wandb = {name: os.environ[name] for name in WANDB_SAYS if os.environ.get(name)}
    variables = {**STOP, "PYTHONUNBUFFERED": "1", **wandb, **marked, **options.get("env_vars", {})}
    return {"working_dir": working_dir, **options, "env_vars": variables}


def _job(details: JobDetails) -> Job:
    return Job(
        id=details.submission_id,
        state=str(JobStatus(details.status)).lower(),
        started=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        storage=details.metadata["storage"],
        node=details.driver_node_id,
    )
