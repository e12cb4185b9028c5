"""An export: written under a hidden name, run by the program that will run it, named once it has passed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftlib.errors import InputError
from ftlib.export.formats import ADAPTERS, USES, Format, check_dtype, format_of
from ftlib.export.gate import Trained, check_logits, check_reading
from ftlib.export.layers import check_layers
from ftlib.export.program import Program
from ftlib.export.source import Source
from ftlib.files.atomic import publish, write_json, write_text
from ftlib.registry.agreement import free, short
from ftlib.registry.card import CARD
from ftlib.registry.staging import staging_in

FIGURES = "export.json"
Say = Callable[[str], None]


@dataclass
class Tasks:
    """What somebody does beside the probes: hears of each loaded model, and of the program. It does nothing here."""

    def loaded(self, who: str, model: Any, source: Source) -> None:
        """The loaded base ("base") and tuned model ("trained"), one after the other."""

    def check(self, program: Program, owner: str) -> dict[str, Any]:
        """What the artifact is worth. Raises FtlibError for one that lost what the tune had gained."""
        return {}


@dataclass(frozen=True)
class Exported:
    """What came of an export: its folder, and the figures of its gate."""

    folder: Path
    figures: dict[str, Any] = field(default_factory=dict)


def export(
    source: Source,
    to: str,
    out: Path,
    dtype: str | None,
    say: Say,
    tasks: Tasks | None = None,
    trained: Trained | None = None,
) -> Exported:
    """Writes a source in a format into the folder `out`, which must not be there.

    `trained` is what was trained, where that is known from an export before.

    Raises InputError for what the format cannot hold, and FtlibError, with the figures, for an artifact that lost the
    tune: it is gone then.
    """
    format, tasks = format_of(to), tasks or Tasks()
    dtype = check_dtype(to, format, dtype)
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} is there already: name a folder that is not, with -o.")
    format.check(source, dtype)
    trained = trained or source.trained(lambda who, model: tasks.loaded(who, model, source), to)
    with staging_in(out.absolute().parent) as staged:
        staged.mkdir()
        started = time.perf_counter()
        format.write(source, staged, dtype)
        seconds = time.perf_counter() - started
        figures = _figures(staged) | {"write_seconds": round(seconds, 1)}
        say(f"written: {to}{f' ({dtype})' if dtype else ''}, {figures['bytes'] / 1e6:,.1f} MB")
        found = run(format, source, staged, trained, dtype, tasks)
        for sentence in sentences(found):
            say(sentence)
        told = {"of": source.owner, "to": to, "dtype": dtype, "base": source.hub_name, **figures, **found}
        write_text(staged / CARD, source.card(to not in ADAPTERS) + _section(told))
        write_json(staged / FIGURES, told)
        if not publish(staged, out.absolute()):
            raise InputError(f"{out} was made by somebody else meanwhile: name another folder with -o.")
    return Exported(out, told)


def run(
    format: Format, source: Source, folder: Path, trained: Trained, dtype: str | None, tasks: Tasks
) -> dict[str, Any]:
    """Runs an artifact, and says what was found. Raises FtlibError for one that lost the tune."""
    owner = f"the export of {source.owner}"
    program = format.program(source, folder)
    started = time.perf_counter()
    logits = program.logits(trained.probes)
    seconds = time.perf_counter() - started
    check_reading(trained.reading, program.reading(trained.texts), owner)
    limits = format.limits(trained, dtype)
    found = check_logits(trained, logits, limits, owner)
    farthest = check_layers(trained.layers, program.layers(trained.layers), owner)
    done = tasks.check(program, owner)
    read = sum(len(ids) for ids in trained.probes)
    told = {
        "program": program.name,
        "probes": trained.source,
        **found.to_json(),
        "limit": limits.apart,
        "farthest_layer": None if farthest is None else short(farthest),
        "tokens_read_per_second": round(read / seconds, 1),
        "tasks": done,
    }
    del program
    free()
    return told


def sentences(found: dict[str, Any]) -> list[str]:
    """What the gate found, for a person."""
    effect = "" if found["effect"] is None else f"; the base is {found['effect']:.2g} apart"
    kept = "" if found["kept"] is None else f", {found['kept']:.0%} of the tune kept"
    layer = "" if found["farthest_layer"] is None else f"; the farthest layer is {found['farthest_layer']:.2g} apart"
    lines = [
        f"gate: run by {found['program']} on {found['probes']}: logits {found['apart']:.2g} apart (at most "
        f"{found['limit']:g}{effect}){kept}, {found['tokens']:.0%} of the likeliest tokens the same{layer}"
    ]
    for name, task in found["tasks"].items():
        lines += [f"gate: {name}: {task}"] if isinstance(task, str) else [f"gate: {name}: {task['sentence']}"]
    return lines


def _section(told: dict[str, Any]) -> str:
    """What the card says of the export."""
    numbers = f"`{told['dtype']}`" if told["dtype"] else "as trained"
    found = "\n".join(f"- {sentence}" for sentence in sentences(told))
    what = f"Format `{told['to']}`, numbers {numbers}. Use: `{USES[told['to']]}`. The gate of ftlib let it through:"
    return f"\n## This export\n\n{what}\n\n{found}\n"


def _figures(folder: Path) -> dict[str, Any]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {"bytes": sum(file.stat().st_size for file in files)}
