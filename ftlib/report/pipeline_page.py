"""The page of `ftlib pipeline`: its steps as a graph and one by one, with what each came to and where it is.

One file without a script and without a network, as `report.html` is; all of what it shows is escaped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from ftlib.files.atomic import write_json, write_text
from ftlib.files.json_files import damaged, read_json
from ftlib.report.template import style, template
from ftlib.report.words import count, duration, number
from ftlib.run.pipelines import PAGE, SHOWN
from ftlib.run.plain_text import one_line

WIDTH, HEIGHT, ACROSS, DOWN = 168, 50, 56, 22  # of a box of the graph, and between two, in pixels
LONGEST = 20  # characters of a name in a box
SAID = {
    "running": "is under way",
    "failed": "failed",
    "interrupted": "was interrupted",
    "broken off": "was broken off",
}
SIGNS = {"done": "✓", "unchanged": "✓", "running": "…", "failed": "✕", "interrupted": "‖"}


@dataclass(frozen=True)
class ShownStep:
    """A step as the page has it. `state` is a word; `why` says more of it. `links` are words and places, relative to
    the page; `run` is the directory of its run. `began` is in seconds since the epoch, None where it was never
    begun."""

    name: str
    what: str
    needs: Sequence[str]
    state: str
    why: str = ""
    made: str = ""
    began: FiniteFloat | None = None
    seconds: FiniteFloat = 0.0
    figures: dict[str, float | int | str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()
    run: str = ""


@dataclass(frozen=True)
class ShownPipeline:
    """A pipeline as the page has it. `facts` are sentences on when all of it is done again."""

    name: str
    path: str
    steps: Sequence[ShownStep]
    facts: Sequence[str] = ()


@dataclass(frozen=True)
class Box:
    """A step in the graph: its place in pixels, and the words in it."""

    step: ShownStep
    x: int
    y: int
    name: str
    told: str


def write_pipeline_page(shown: ShownPipeline, folder: Path) -> None:
    """Writes the page, and what it shows, into the pipeline's directory. Raises StorageError where that is not
    possible."""
    write_text(folder / PAGE, page(shown))
    write_json(folder / SHOWN, asdict(shown))


def read_shown(folder: Path) -> ShownPipeline | None:
    """What the page of a pipeline shows; None where there is none. Raises FtlibError for a damaged file."""
    told = read_json(folder / SHOWN, dict)
    if told is None:
        return None
    try:
        return TypeAdapter(ShownPipeline).validate_python(told)
    except ValidationError:
        raise damaged(folder / SHOWN, "it shows no pipeline") from None


def page(shown: ShownPipeline) -> str:
    """The page's HTML."""
    boxes = list(_boxes(shown.steps))
    return template("pipeline.html").render(
        name=shown.name,
        path=shown.path,
        verdict=verdict(shown.steps),
        facts=[*shown.facts, f"written {_moment(time.time())}"],
        boxes=boxes,
        lines=list(_lines(boxes)),
        box={"width": WIDTH, "height": HEIGHT},
        size=_size(boxes),
        steps=[(step, _about(step), _figures(step)) for step in shown.steps],
        style=style("pipeline.css"),
    )


def verdict(steps: Sequence[ShownStep]) -> str:
    """Where it stands, in a line: `sft is under way`, `All 3 steps are done`."""
    states = [step.state for step in steps]
    for state, told in SAID.items():
        names = [step.name for step in steps if step.state == state]
        if names:
            return f"{' and '.join(names)} {told}"
    done = sum(state in ("done", "unchanged") for state in states)
    return (
        f"All {count(done, 'step')} are done"
        if done == len(steps)
        else f"{done} of {count(len(steps), 'step')} are done"
    )


def _about(step: ShownStep) -> list[str]:
    told = [step.what]
    if step.began is not None:
        told += [duration(step.seconds) if step.state != "running" else "", _moment(step.began)]
    if step.needs:
        told.append(f"needs {', '.join(step.needs)}")
    return [one for one in told if one]


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _figures(step: ShownStep) -> list[tuple[str, str]]:
    return [(name, _figure(value)) for name, value in step.figures.items()]


def _figure(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else number(value)


# --- the graph ----------------------------------------------------------------------------------------------------


def _boxes(steps: Sequence[ShownStep]) -> Iterator[Box]:
    """Each step right of all that it needs, below those that stand there already."""
    columns: dict[str, int] = {}
    filled: dict[int, int] = {}
    for step in steps:
        column = max((columns[need] + 1 for need in step.needs if need in columns), default=0)
        columns[step.name] = column
        row = filled[column] = filled.get(column, -1) + 1
        name, words = one_line(step.name), f"{SIGNS.get(step.state, '·')} {step.state}"
        if step.state in ("done", "failed"):
            words += f", {duration(step.seconds)}"
        yield Box(
            step,
            column * (WIDTH + ACROSS),
            row * (HEIGHT + DOWN),
            name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…",
            words,
        )


def _lines(boxes: Sequence[Box]) -> Iterator[str]:
    """The curves from what is needed to what needs it, as paths of SVG. A line that would go through a box of a column
    between goes below the boxes of that column."""
    at = {box.step.name: box for box in boxes}
    for box in boxes:
        for need in box.step.needs:
            if need in at:
                yield _curve(at[need], box, boxes)


def _curve(begin: Box, end: Box, boxes: Sequence[Box]) -> str:
    x1, y1, x2, y2 = begin.x + WIDTH, begin.y + HEIGHT // 2, end.x, end.y + HEIGHT // 2
    between = [box for box in boxes if x1 < box.x < x2]
    if not between:
        middle = (x1 + x2) // 2
        return f"M{x1},{y1} C{middle},{y1} {middle},{y2} {x2},{y2}"
    low = max(box.y for box in between) + HEIGHT + DOWN // 2
    left, right = x1 + ACROSS // 2, x2 - ACROSS // 2
    down = f"M{x1},{y1} C{left},{y1} {left},{low} {x1 + ACROSS},{low}"
    return f"{down} L{x2 - ACROSS},{low} C{right},{low} {right},{y2} {x2},{y2}"


def _size(boxes: Sequence[Box]) -> dict[str, int]:
    return {"width": max(box.x for box in boxes) + WIDTH, "height": max(box.y for box in boxes) + HEIGHT + DOWN}
