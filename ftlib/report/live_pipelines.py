"""The pipelines of a folder as the live page is told of them: what `ftlib pipeline` shows of each on its own page.

A pipeline can be anyone's, and damaged: it is told of with the reason, beside the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError, InputError
from ftlib.files.paths import below, why_no_name
from ftlib.report.pipeline_page import ShownPipeline, ShownStep, read_shown, verdict
from ftlib.run.layout import RESOLVED
from ftlib.run.pipelines import SHOWN, PipelineFolder
from ftlib.run.plain_text import one_line

CARD = "README.md"
CARD_BYTES = 2**22
DATA, REGISTRY = "data:", "registry:"
WEB = ("http://", "https://")
BROKEN_OFF = "broken off"
WHY = "no process of this machine is at work on it: ftlib pipeline goes on there"

Told = dict[str, Any]


def pipelines_of(folder: Path, runs: Path) -> list[Told]:
    """Each pipeline of a folder, with its steps in their order. A step links to its run where that is one of `runs`."""
    return [_told(PipelineFolder(folder / name), runs) for name in _names(folder)]


def card_of(folder: Path, name: str, step: str) -> str:
    """The card of the version that a step has made. Raises InputError where there is none."""
    if why_no_name(name) or "/" in name or (shown := read_shown(below(folder, name, str(folder)))) is None:
        raise InputError(f"{folder} has no pipeline '{one_line(name)[:80]}'.")
    made = next((one.made for one in shown.steps if one.name == step), "")
    if not _has_card(made):
        raise InputError(f"The step '{one_line(step)[:80]}' has made no version.")
    file = below(_version(made), CARD, made)
    if not file.is_file() or file.stat().st_size > CARD_BYTES:
        raise InputError(f"{made} has no {CARD}.")
    return file.read_text(encoding="utf-8", errors="replace")


def _names(folder: Path) -> Iterator[str]:
    """Of folders that are pipelines; a link is none, since it leads out of the folder."""
    try:
        found = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    yield from (name for name in sorted(found) if (folder / name / SHOWN).is_file())


def _told(folder: PipelineFolder, runs: Path) -> Told:
    name = one_line(folder.path.name)
    try:
        shown = read_shown(folder.path)
        return {"name": name, **(_of(shown, folder, runs) if shown else {"damaged": "it is gone"})}
    except FtlibError as error:
        return {"name": name, "damaged": one_line(str(error))}


def _of(shown: ShownPipeline, folder: PipelineFolder, runs: Path) -> Told:
    running = any(step.state == "running" for step in shown.steps)
    steps = [_broken_off(step) for step in shown.steps] if running and not folder.worked_on else shown.steps
    return {
        "title": one_line(shown.name),
        "path": one_line(str(folder.path)),
        "verdict": one_line(verdict(steps)),
        "facts": [one_line(fact) for fact in shown.facts],
        "steps": [_step(step, runs) for step in steps],
    }


def _broken_off(step: ShownStep) -> ShownStep:
    """A step as it stands where nobody works on the pipeline."""
    return replace(step, state=BROKEN_OFF, why=WHY) if step.state == "running" else step


def _step(step: ShownStep, runs: Path) -> Told:
    return {
        "name": one_line(step.name),
        "what": one_line(step.what),
        "state": one_line(step.state),
        "why": one_line(step.why),
        "made": one_line(step.made),
        "began": step.began,
        "seconds": step.seconds,
        "run": _run(step, runs),
        "card": _has_card(step.made),
        "urls": [place for _, place in step.links if place.startswith(WEB)],
    }


def _run(step: ShownStep, runs: Path) -> str:
    """The name of a step's run; an empty text where the page has none of that name."""
    run = Path(step.run)
    return run.name if step.run and run.parent.absolute() == runs and (runs / run.name / RESOLVED).is_file() else ""


def _has_card(made: str) -> bool:
    return made.startswith((DATA, REGISTRY))


def _version(made: str) -> Path:
    from ftlib.registry import data_versions, registry

    if made.startswith(DATA):
        return data_versions.resolve(made).path
    return registry.resolve(made.removeprefix(REGISTRY)).path
