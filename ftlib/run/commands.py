"""Commands for a running sweep, as files in its directory: written by another terminal, taken up by its driver.

A file is renamed into `<run>/commands` when it is whole. The driver does what it says, notes it in `events.jsonl`
under the file's name, with a sentence, and removes it.
"""

from __future__ import annotations

import secrets
import shlex
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ftlib.errors import FtlibError, InputError, nearest
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.run.directory import Run
from ftlib.run.layout import COMMANDS

EVENT = "steered"
Deed = Literal["stop", "resume", "clone", "boost", "add", "replicate"]
ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Command:
    """What should be done, to which trial, with which keys changed; `count` is of `add`."""

    do: Deed
    trial: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    count: int = 0


def send(run: Run, command: Command) -> str:
    """Puts a command where the driver looks; returns its name."""
    name = f"{time.time_ns()}-{secrets.token_hex(2)}"
    write_json(run.path / COMMANDS / f"{name}.json", asdict(command))
    return name


def waiting(run: Run) -> list[tuple[str, Command]]:
    """The commands that nobody has taken up, oldest first."""
    files = sorted((run.path / COMMANDS).glob("[!.]*.json"))
    return [(file.stem, Command(**tree)) for file in files if (tree := read_json(file)) is not None]


def done(run: Run, name: str, command: Command, worked: bool, sentence: str) -> None:
    """Notes what came of a command, and takes it away."""
    run.log_event(EVENT, command=name, do=command.do, trial=command.trial, worked=worked, sentence=sentence)
    _file(run, name).unlink(missing_ok=True)


def answer(run: Run, name: str, seconds: float) -> tuple[bool, str] | None:
    """(whether it worked, a sentence), or None where no driver has taken the command up in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not _file(run, name).exists():
            for event in reversed(run.events()):
                if event["event"] == EVENT and event["command"] == name:
                    return event["worked"], event["sentence"]
        time.sleep(0.2)
    return None


def ask(run: Run, command: Command) -> str:
    """Sends a command to the driver of a run and waits for its sentence.

    Raises InputError for a trial that is not there, for a run that nobody conducts, and where the driver refuses;
    FtlibError where it has not answered within `ANSWER_SECONDS`.
    """
    known = [candidate.id for candidate in run.trials()]
    if command.trial is not None and command.trial not in known:
        raise InputError(f"{run.path} has no trial '{command.trial}'.{nearest(command.trial, known)}")
    if not run.conducted:
        raise InputError(f"{run.path} is not running: 'ftlib resume {shlex.quote(str(run.path))}' goes on with it.")
    answered = answer(run, send(run, command), ANSWER_SECONDS)
    if answered is None:
        raise FtlibError(f"the sweep has not answered for {ANSWER_SECONDS} s; it will do it when it comes to it.")
    worked, sentence = answered
    if not worked:
        raise InputError(sentence)
    return sentence


def _file(run: Run, name: str) -> Path:
    return run.path / COMMANDS / f"{name}.json"
