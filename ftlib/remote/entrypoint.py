"""A job on the cluster: `python -m ftlib.remote.entrypoint run RUN JOB` inside an unpacked parcel is the driver of RUN.

What the client and this side say to each other, besides what Ray's Jobs API carries: a line with a public key in the
job's log (`sealed.KEY`), a box of secrets in the cluster's package store (`sealed.box`), a line about an archive
(`archive.READY`).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import FtlibError
from ftlib.run.layout import EXPERIMENT

if TYPE_CHECKING:
    from ftlib.run.directory import Run

PATIENCE = 300.0  # seconds that a driver waits for its secrets
INTERRUPTED = 130
KEPT = 900.0  # seconds that an archive waits to be fetched


def storage_of(storage: str) -> str:
    """Where a job's run goes: a URL as it is; a path of the client's machine means the driver's own disk."""
    from ftlib.files.home import home
    from ftlib.files.urls import is_url

    return storage if is_url(storage) else str(home() / "runs")


def run(name: str, job: str, secrets: bool) -> int:
    """Runs the parcel's experiment as the run `name`. Raises FtlibError where the cluster has other versions of the
    libraries."""
    from ftlib.config import Experiment
    from ftlib.driver.execute import start
    from ftlib.driver.terminal_listener import TerminalListener, tell

    vault = _begin(job, secrets)
    tree = json.loads(Path("experiment.json").read_text(encoding="utf-8"))
    tree["storage"] = storage_of(tree["storage"])
    experiment = Experiment.parse(tree).anchored()
    told = _parcel()
    parcel = {"root": os.getcwd(), "inputs": told["inputs"], "data_versions": told["data_versions"]}
    text = Path(EXPERIMENT).read_text(encoding="utf-8")
    status = tell(start(experiment, text, TerminalListener(), run_name=name, parcel=parcel))
    del vault
    return status


def resume(name: str, job: str, secrets: bool, trust: bool) -> int:
    """Continues the run `name`. Its inputs are where this job's parcel has them."""
    from ftlib.config import Experiment
    from ftlib.driver.execute import go_on
    from ftlib.driver.terminal_listener import TerminalListener, tell
    from ftlib.run.remote_run import open_run

    vault = _begin(job, secrets)
    tree = json.loads(Path("experiment.json").read_text(encoding="utf-8"))
    opened = open_run(f"{storage_of(tree['storage'])}/{name}")
    resolved = {**opened.experiment, **{key: tree[key] for key in ("model", "data", "method")}}
    status = tell(go_on(Experiment.parse(resolved).anchored(), opened, TerminalListener(), trust))
    del vault
    return status


def _begin(job: str, secrets: bool) -> Any:
    _check_versions()
    from ftlib.cluster.session import start_ray

    start_ray()
    return _take_secrets(job) if secrets else None


def _check_versions() -> None:
    from ftlib.remote.parcel import differing

    sent = _parcel()["versions"]
    other = differing(sent, _installed(sent))
    if other and not os.environ.get("FTLIB_ANY_VERSIONS"):
        raise FtlibError(
            f"this cluster has {', '.join(other)}: install constraints.txt there, or submit with --pip or "
            "--any-versions."
        )


def _installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _parcel() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(Path("parcel.json").read_text(encoding="utf-8"))
    return told


def _take_secrets(job: str) -> Any:
    """Shows a key, waits for the box, empties it into a vault. Raises FtlibError when none comes."""
    from ftlib.cluster.ray_private import take_package
    from ftlib.cluster.vault import open_vault
    from ftlib.remote.sealed import KEY, Receiver, box

    receiver = Receiver()
    print(f"{KEY}{receiver.public}", flush=True)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sealed = take_package(box(job))
        if sealed is not None:
            return open_vault(receiver.open(sealed))
        time.sleep(0.2)
    raise FtlibError(
        f"no secrets came within {PATIENCE:.0f} s: submit again, and let the command wait for its last line."
    )


def archive(name: str, job: str, storage: str, weights: str) -> None:
    """Puts the run `name` where Ray's log service can stream it, says so, and takes it away again when it was fetched
    (the client stops this job) or after `KEPT` seconds."""
    import ray

    from ftlib.cluster.ray_private import logs_folder
    from ftlib.cluster.session import start_ray
    from ftlib.run.archive import READY, write_archive

    opened = _whole(f"{storage_of(storage)}/{name}")
    start_ray()
    node = ray.get_runtime_context().get_node_id()
    target = logs_folder() / f"ftlib-{job}.tar"
    _removed_with_this_process(target)
    try:
        told = write_archive(opened, target, weights)
        print(READY + json.dumps({"node": node, "file": target.name, **told}), flush=True)
        time.sleep(KEPT)
    finally:
        target.unlink(missing_ok=True)


def _removed_with_this_process(file: Path) -> None:
    """Has a process of its own remove the file when this one is gone, however it went: Ray kills a job that it stops
    after three seconds, and what the job has started too. So nobody of the job's family waits."""
    waits = 'trap "" TERM INT HUP; while kill -0 "$0" 2>/dev/null; do sleep 1; done; rm -f "$1"'
    command = ["sh", "-c", f"({waits}) &", str(os.getpid()), str(file)]
    none = subprocess.DEVNULL
    subprocess.run(command, check=True, start_new_session=True, stdin=none, stdout=none, stderr=none)


def _whole(place: str) -> Run:
    """A run with the weights that other machines have carried to its URL."""
    from ftlib.run.remote_run import bring_weights, open_run

    opened = open_run(place)
    for trial in opened.trials():
        bring_weights(opened, trial)
    return opened


def main() -> None:
    """`run|resume RUN JOB [--secrets] [--trust]`, `archive RUN JOB STORAGE WEIGHTS`: written by `ftlib.remote.jobs`
    alone."""
    from ftlib.driver.process import guarded
    from ftlib.driver.quiet import quiet_libraries

    verb, name, job, *rest = sys.argv[1:]
    calls = {
        "run": lambda: run(name, job, "--secrets" in rest),
        "resume": lambda: resume(name, job, "--secrets" in rest, "--trust" in rest),
        "archive": lambda: archive(name, job, *rest),
    }
    quiet_libraries()
    try:
        guarded(calls[verb], debug=False)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # Ray's stop has also reached W&B's process, whose client would complain of it
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
