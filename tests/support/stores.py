"""Object stores that speak as S3 and as Google Cloud Storage do: moto's server and gcp-storage-emulator, in processes
and an environment of their own (botocore wants an older dateutil than pandas has here)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ftlib.files import object_store

SERVERS = Path(sys.prefix) / "stores" / "bin"
BUCKET = "tests"
S3_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(port: int) -> Iterator[dict[str, str]]:
    """The variables with which s3://tests is reached."""
    with _server(port, "moto_server", "-H", "127.0.0.1", "-p", str(port)) as url:
        _make_bucket(url)
        yield {**S3_VARIABLES, "AWS_ENDPOINT_URL": url}


@contextmanager
def s3_here(port: int) -> Iterator[dict[str, str]]:
    """An S3-compatible server that this process reaches, and its variables."""
    with s3_server(port) as variables, pytest.MonkeyPatch.context() as patch:
        for key, value in variables.items():
            patch.setenv(key, value)
        object_store._filesystem.cache_clear()
        yield variables
    object_store._filesystem.cache_clear()


@contextmanager
def gs_server(port: int) -> Iterator[dict[str, str]]:
    """The variables with which gs://tests is reached."""
    options = ("start", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={BUCKET}")
    with _server(port, "gcp-storage-emulator", *options):
        yield {"STORAGE_EMULATOR_HOST": f"127.0.0.1:{port}"}


@contextmanager
def _server(port: int, program: str, *options: str) -> Iterator[str]:
    if not (SERVERS / program).exists():
        pytest.skip(f"no object store: {program} is not there; `make .venv/stores/.installed` fetches it")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [str(SERVERS / program), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}")


def _make_bucket(url: str) -> None:
    from pyarrow import fs

    there = fs.S3FileSystem(
        endpoint_override=url, access_key="tests", secret_key="tests", region="us-east-1", allow_bucket_creation=True
    )
    there.create_dir(BUCKET)
