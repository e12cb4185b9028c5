"""The directory of a pipeline: the name of each file, and what is known of each step.

    <storage>/<name>/
      pipeline.yaml      the pipeline as its author wrote it, of the last time that it was done
      pipeline.html      all of it as a page
      shown.json         what the page shows, for `ftlib ui`
      round.json         until when the sampled requests count, which are rows of `log:` sources
      contents.json      the hashes of large files, by their size and time
      steps/<step>.json  what a step came to: its state, what it depended on, its result
      steps/<step>/      files of a step: an evaluation's numbers and answers, an endpoint's log

One process writes them: it holds `.lock`. Each is written to a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ftlib.errors import FtlibError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import damaged, read_json
from ftlib.files.locks import hold, lock
from ftlib.run.layout import LOCK

PIPELINE = "pipeline.yaml"
PAGE = "pipeline.html"
SHOWN = "shown.json"
ROUND = "round.json"
CONTENTS = "contents.json"
STEPS = "steps"
ENDPOINT_LOG = "endpoint.log"

State = Literal["running", "done", "failed", "interrupted", "waiting"]
Inputs = dict[str, str]


@dataclass(frozen=True)
class Record:
    """What is known of a step. `made` is what steps that need it depend on: a version, a winner. `places` are where a
    person finds it (run, trial, card, url), `figures` numbers and short texts, `why` a sentence on a failure. `began`
    is in seconds since the epoch."""

    state: State
    inputs: Inputs
    began: float
    seconds: float = 0.0
    made: str = ""
    places: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float | int | str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    why: str = ""

    def ended(self, state: State, why: str = "") -> Record:
        """The record of a step that has come to its end now."""
        return replace(self, state=state, seconds=round(time.time() - self.began, 3), why=why)


@dataclass(frozen=True)
class PipelineFolder:
    """The directory of one pipeline."""

    path: Path

    @classmethod
    def of(cls, storage: str, name: str) -> PipelineFolder:
        return cls(Path(storage).expanduser().absolute() / name)

    @property
    def page(self) -> Path:
        return self.path / PAGE

    def record(self, step: str) -> Record | None:
        """What is known of a step; None where it was never begun. Raises FtlibError for a damaged file."""
        file = self.path / STEPS / f"{step}.json"
        told = read_json(file, dict)
        if told is None:
            return None
        if (why := _why_no_record(told)) is not None:
            raise damaged(file, why)
        return Record(**told)

    def keep(self, step: str, record: Record) -> None:
        """Writes what is known of a step."""
        write_json(self.path / STEPS / f"{step}.json", asdict(record))

    def files_of(self, step: str) -> Path:
        """The folder for files of a step, which need not be there."""
        return self.path / STEPS / step

    @property
    def until(self) -> float | None:
        """Until when sampled requests count, in seconds since the epoch; None before the first time."""
        told = read_json(self.path / ROUND, dict) or {}
        found = told.get("until")
        return float(found) if isinstance(found, int | float) else None

    def begin_round(self, until: float) -> None:
        """Takes the requests that were sampled until a time."""
        write_json(self.path / ROUND, {"until": until})

    @property
    def worked_on(self) -> bool:
        """Whether a process of this machine works on the pipeline. Makes no file."""
        try:
            with (self.path / LOCK).open("rb") as file:
                hold(file, wait=False)
        except BlockingIOError:
            return True
        except OSError:  # nobody has begun, or there are no locks here
            pass
        return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Within, this process alone works on the pipeline. The kernel frees the lock when the process dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            held = contextlib.ExitStack()
            file = held.enter_context(lock(self.path / LOCK, wait=False))
        except BlockingIOError:
            holder = (self.path / LOCK).read_text(encoding="utf-8", errors="replace")[:80].strip()
            raise FtlibError(f"{self.path} is being worked on by process {holder}: wait, or stop it.") from None
        with held:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def _why_no_record(told: dict[str, Any]) -> str | None:
    """What keeps a mapping from being a record, in a few words; None where nothing does."""
    known = {one.name for one in fields(Record)}
    if not {"state", "inputs", "began"} <= set(told) <= known or told["state"] not in get_args(State):
        return "it holds no record of a step"
    texts = [told.get("made", ""), told.get("why", ""), *told.get("notes", [])]
    mappings = [told["inputs"], told.get("places", {}), told.get("figures", {})]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(one, dict) for one in mappings):
        return "it holds no record of a step"
    texts = [*told["inputs"].values(), *told.get("places", {}).values()]
    numbers = [told["began"], told.get("seconds", 0.0)]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(one, int | float) for one in numbers):
        return "it holds no record of a step"
    return None
