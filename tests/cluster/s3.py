"""An S3-compatible server: moto's, in a process, and an environment, of its own (its botocore wants an older dateutil
than pandas has here)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

SERVER = Path(sys.prefix) / "s3" / "bin" / "moto_server"
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(port: int) -> Iterator[str]:
    """Its URL, for AWS_ENDPOINT_URL."""
    assert SERVER.exists(), "run `make install`: it installs the S3 server of the tests"
    process = subprocess.Popen(
        [str(SERVER), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def make_bucket(url: str, name: str) -> None:
    from pyarrow import fs

    fs.S3FileSystem(endpoint_override=urlparse(url).geturl(), allow_bucket_creation=True).create_dir(name)
