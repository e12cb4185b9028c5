"""Every line that a command prints is ours, on a terminal and without one.

Of sweeps, of an interrupted one and of the endpoint: tests/sweeps/test_sweep.py, tests/sweeps/test_packed.py,
test_spine.py.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from ftlib.run.directory import Run

from .conftest import foreign, write_experiment

FTLIB = [sys.executable, "-m", "ftlib.cli"]


def on_a_terminal(*args: Any) -> tuple[int, str]:
    """Runs a command on a terminal of its own: (exit status, what is seen there)."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in LOUD} | {"COLUMNS": "200"}
    process = subprocess.Popen([*FTLIB, *map(str, args)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        seen += part
    os.close(ours)
    return process.wait(), seen.decode()


def without_one(*args: Any) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name not in LOUD}
    command = [*FTLIB, *map(str, args)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    return done.returncode, done.stdout


LOUD = ("PYTHONWARNINGS", "TRANSFORMERS_VERBOSITY", "WANDB_SILENT")  # that the tests' own process has set


def test_checked_promoted_and_merged(swept: tuple[Run, str], tree: dict[str, Any], tmp_path: Path) -> None:
    run, _ = swept
    file = write_experiment(tmp_path / "x.yaml", tree)
    for how, command in (
        (on_a_terminal, ("check", file)),
        (without_one, ("promote", run.path, "--as", "lines")),
        (on_a_terminal, ("merge", "registry:lines", tmp_path / "merged")),
        (without_one, ("registry",)),
        (on_a_terminal, ("leaderboard", run.path)),
        (on_a_terminal, ("resume", run.path)),
    ):
        status, output = how(*command)
        assert status == 0, output
        assert foreign(output) == [], command


def test_a_foreign_line_is_found() -> None:
    for line in (
        "Failed to load CPU gemm_4bit_forward from kernels-community: No module named 'kernels'.",
        "[2026-11-27 11:33:56,383] [WARNING] [real_accelerator.py:213:get_accelerator] Setting accelerator to CPU.",
        "RAY",
        "/usr/lib/python3/x.py:3: UserWarning: this is old",
        "*** SIGTERM received at time=1795779555 on cpu 1 ***",
        "Traceback (most recent call last):",
        "2026-11-27 11:50:18 WARNING worker.py:1 -- hello",
    ):
        assert foreign(f"run /x\n{line}\n") == [line]
