"""An endpoint that goes on after the pipeline: `ftlib serve` as a process of its own, found again by its URL.

It is a process, and no call, since it has to outlive the pipeline; a person ends it with the line that the step tells.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from ftlib.config.pipeline import ServeStep
from ftlib.errors import FtlibError
from ftlib.run.pipelines import ENDPOINT_LOG

PATIENCE = 300.0  # seconds until an endpoint answers: a large base is loaded in minutes
PAUSE = 0.5
SECONDS = 5.0  # that one question may take


def answers(step: ServeStep) -> bool:
    """Whether an endpoint answers there."""
    try:
        with urllib.request.urlopen(f"{step.url}/health", timeout=SECONDS):
            return True
    except OSError:
        return False


def serves(step: ServeStep) -> bool:
    """Whether the endpoint there serves the names. One that asks for a key is believed."""
    try:
        with urllib.request.urlopen(f"{step.url}/v1/models", timeout=SECONDS) as answer:
            listed = {str(model["id"]) for model in json.load(answer)["data"]}
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return set(step.serve) <= listed


def start(step: ServeStep, folder: Path) -> int:
    """Starts an endpoint, and returns the number of its process once it serves the names. Raises FtlibError where it
    ends before."""
    log = folder / ENDPOINT_LOG
    options = [f"{path}={json.dumps(value)}" for path, value in step.set.items()]
    command = [sys.executable, "-m", "ftlib.cli", "serve", *step.serve, *options]
    command += ["--host", step.host, "--port", str(step.port)]
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise FtlibError(f"the endpoint has ended: {_last_line(log)} ({log} has all of it).")
            if serves(step):
                return process.pid
            time.sleep(PAUSE)
        raise FtlibError(f"the endpoint does not answer at {step.url} within {PATIENCE:.0f} s: {log} says more.")
    except BaseException:
        process.terminate()
        raise


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ").rstrip(".") if lines else "it said nothing"
