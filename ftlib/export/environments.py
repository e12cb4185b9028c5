"""Programs that do not go beside ours, each in an environment of its own: <FTLIB_HOME>/environments/NAME.

`ftlib setup NAME` makes one. A variable names the Python of one that is there already.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftlib.errors import FtlibError, InputError, nearest
from ftlib.files.home import home


@dataclass(frozen=True)
class Environment:
    """What pip installs, with which variables set. `imports` is the module that must be there; `told` is said before
    it begins."""

    packages: Sequence[str]
    imports: str
    variable: str
    told: str
    settings: Mapping[str, str] = field(default_factory=dict)


ENVIRONMENTS = {
    "llama-cpp": Environment(
        ("llama-cpp-python>=0.3.36,<0.4",),
        "llama_cpp",
        "FTLIB_LLAMA_CPP",
        "pip compiles llama.cpp, which needs a C++ compiler and about half an hour on two cores",
        {"CMAKE_ARGS": "-DLLAVA_BUILD=OFF"},  # images
    ),
}


def python_of(name: str) -> Path:
    """The Python of an environment. Raises InputError, with the command that makes it, where there is none."""
    one = ENVIRONMENTS[name]
    named = os.environ.get(one.variable)
    python = Path(named).expanduser() if named else _folder(name) / "bin" / "python"
    if not python.is_file():
        where = f"{one.variable} names {named}, which is not there" if named else f"{name} is not set up"
        raise InputError(f"{where}: 'ftlib setup {name}' makes an environment for it ({one.told}).")
    return python


def set_up(name: str) -> Path:
    """Makes an environment, in the place of one that was not finished, and returns its Python.

    Raises InputError for a name that there is not, and FtlibError, with pip's last line, where pip fails.
    """
    if name not in ENVIRONMENTS:
        raise InputError(f"setup {name}: there is {', '.join(ENVIRONMENTS)}.{nearest(name, ENVIRONMENTS)}")
    one, folder = ENVIRONMENTS[name], _folder(name)
    python = folder / "bin" / "python"
    if python.is_file() and not _run([str(python), "-c", f"import {one.imports}"]).returncode:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _checked([sys.executable, "-m", "venv", str(folder)], name)
    _checked(
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *one.packages], name, one.settings
    )
    _checked([str(python), "-c", f"import {one.imports}"], name)
    return python


def _folder(name: str) -> Path:
    return home() / "environments" / name


def _checked(command: list[str], name: str, settings: Mapping[str, str] | None = None) -> None:
    done = _run(command, settings)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise FtlibError(f"{name} could not be set up: {last}")


def _run(command: list[str], settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(command, env={**kept, **(settings or {})}, capture_output=True, text=True, check=False)
