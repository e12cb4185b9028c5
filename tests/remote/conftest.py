"""A cluster that asks for a token, and a client that shares nothing with it but the address and the token."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


# Above the ports of Ray's workers, and below those that Linux gives to whoever connects: none is taken by chance
# between here and the process that wants it, which starts seconds later.
QUIET_PORTS = range(20_001, 32_000)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = secrets.choice(QUIET_PORTS)
            sock = stack.enter_context(socket.socket())
            with suppress(OSError):
                sock.bind(("127.0.0.1", port))
                found.append(port)
        return found


@dataclass
class TokenCluster:
    """A head in processes of its own, with a home of its own."""

    address: str
    token: str
    home: Path
    temp: Path
    process: subprocess.Popen[bytes] = field(repr=False)
    gcs: int
    environment: dict[str, str] = field(repr=False)

    @property
    def runs(self) -> Path:
        return self.home / "ftlib" / "runs"


@dataclass
class Client:
    """`ftlib` as another person's process would run it."""

    address: str
    home: Path
    variables: dict[str, str]

    def __call__(self, *args: Any, timeout: float = 420, **variables: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "ftlib.cli", *map(str, args), "--address", self.address],
            env={**self.variables, **variables},
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        return done.returncode, done.stdout


def clean_environment(home: Path, **variables: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "FTLIB_", "WANDB_", "AWS_"))}
    return {
        **kept,
        "HOME": str(home),
        "FTLIB_HOME": str(home / "ftlib"),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        **variables,
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenCluster]:
    with head(tmp_path_factory.mktemp("head"), "--num-cpus=2") as started:
        yield started


@contextmanager
def head(home: Path, *options: str, **variables: str) -> Iterator[TokenCluster]:
    """A head that asks for a token, until the block ends. `variables` are its processes' own."""
    temp = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # Ray's sockets want a short path
    token = "t0ken" + os.urandom(16).hex()
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(token)
    (home / ".ray" / "auth_token").chmod(0o600)
    gcs, dashboard, client = free_ports(3)
    command = [
        *(
            str(BIN / "ray"),
            "start",
            "--head",
            "--block",
            f"--port={gcs}",
            f"--temp-dir={temp}",
            *own_ports(),
            *options,
        ),
        *("--node-ip-address=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        '--resources={"driver": 2}',
    ]
    environment = clean_environment(home, RAY_AUTH_MODE="token", **variables)
    del environment["PYTHONPATH"]  # the code that runs there is the parcel's
    process = run(command, environment, temp / "start.log")
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(address, process, temp / "start.log")
        yield TokenCluster(address, token, home, temp, process, gcs, environment)
    finally:
        end(process)


def own_ports() -> list[str]:
    """Those of a node that Ray would not choose itself."""
    agent, grpc, metrics = free_ports(3)
    listen, asked = f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"
    return [listen, asked, f"--metrics-export-port={metrics}", "--disable-usage-stats"]


def run(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)


def start_machine(cluster: TokenCluster, log: Path) -> subprocess.Popen[bytes]:
    """A node with disks of its own: it sees neither the head's FTLIB_HOME nor its temporary files."""
    disks = [cluster.environment["FTLIB_HOME"], str(cluster.temp)]
    mounts = "".join(f"mount -t tmpfs tmpfs {disk} && " for disk in disks)
    Path(disks[0]).mkdir(exist_ok=True)
    ray = [str(BIN / "ray"), "start", f"--address=127.0.0.1:{cluster.gcs}", "--block", "--num-cpus=2", *own_ports()]
    ray += [f"--temp-dir={cluster.temp}", "--node-ip-address=127.0.0.1"]
    shell = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} exec "$@"', "sh"]
    return run([*shell, *ray], cluster.environment, log)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a head and all that it started, and nothing else."""
    import psutil

    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=15)
    for survivor in alive:
        survivor.kill()
    process.wait(timeout=10)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/jobs/", timeout=5).close()
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"no head came up: {log.read_text()}")


@pytest.fixture
def client(cluster: TokenCluster, tmp_path: Path) -> Client:
    return make_client(cluster, tmp_path / "desk")


def make_client(cluster: TokenCluster, home: Path, **variables: str) -> Client:
    home.mkdir()
    token = home / "token"
    token.write_text(cluster.token)
    token.chmod(0o600)
    return Client(cluster.address, home, clean_environment(home, RAY_AUTH_TOKEN_PATH=str(token), **variables))
