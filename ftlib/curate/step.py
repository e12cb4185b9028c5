"""What a step of a recipe is: one of two kinds, both made of functions. `ftlib/curate/steps/NAME.py` has the step of
that name, as `STEP`.

A row step sees some rows (those of a block), and says which it keeps, drops and has changed. It may make several rows
of one (`rows.child`). What it does to a row must depend on that row, the settings and `context.random(row)` alone: then
the result is the same however rows are cut into blocks, and whoever works on them.

    def work(rows: Sequence[Row], settings: FilterStep, context: Context) -> Result: ...
    STEP = RowStep(work)

A whole step has to know all rows before it decides about any. `sign` makes a small table of a block (hashes, labels).
`decide` sees the tables of all blocks, in order, in one process, and returns a table for each block. `apply` does to
the rows of a block what its table says.

    def sign(rows: Sequence[Row], settings: DedupeStep, context: Context) -> pa.Table: ...
    def decide(signs: Sequence[pa.Table], settings: DedupeStep, context: Context) -> list[pa.Table]: ...
    STEP = WholeStep(sign, decide, apply=drop_told)

`drop_told` is the `apply` of steps that only drop: their tables have a line for each row that goes, with `row` (its
number in the block, from 0), `reason` and `detail`.

Steps import heavy libraries inside their functions. A step raises InputError for settings or rows that it cannot use.
Rows are not changed in place: a changed row is another dict. Fields whose names begin with an underscore are ftlib's
(`ftlib.curate.rows`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftlib.curate.rows import ID, Row

if TYPE_CHECKING:
    import pyarrow as pa

Settings = Any  # the step's own section in ftlib/config/recipe


@dataclass(frozen=True)
class Note:
    """Why a row was dropped or changed. `reason` is counted, so there are few of them: best the name of the setting, or
    of what was found (min_chars, near, email). `detail` is for a person: 12 characters; like tickets.csv:17."""

    row: Row
    reason: str
    detail: str = ""


@dataclass
class Result:
    """What a step made of some rows: `kept` goes on, in this order; `dropped` has the rows that do not; `changed` says
    which rows it has changed, as they are now. Every row that came is either kept (as it was, changed, or as its
    children) or dropped."""

    kept: list[Row] = field(default_factory=list)
    dropped: list[Note] = field(default_factory=list)
    changed: list[Note] = field(default_factory=list)

    def keep(self, row: Row) -> None:
        self.kept.append(row)

    def drop(self, row: Row, reason: str, detail: str = "") -> None:
        self.dropped.append(Note(row, reason, detail))

    def change(self, row: Row, reason: str, detail: str = "") -> None:
        """Keeps a row that is another than it was."""
        self.kept.append(row)
        self.changed.append(Note(row, reason, detail))


@dataclass(frozen=True)
class Context:
    """What a step knows besides its rows and its settings: the recipe's `seed`, and its own `key` in the recipe
    (filter, or filter-2 for the second filter)."""

    seed: int
    key: str

    def draw(self, name: str) -> int:
        """64 bits that depend on the seed, the step and a name (a row's id, a group's)."""
        drawn = hashlib.sha256(f"{self.seed}\0{self.key}\0{name}".encode()).digest()
        return int.from_bytes(drawn[:8], "big")

    def random(self, row: Row) -> random.Random:
        """A generator of a row's own: what is drawn for it depends on no other row."""
        return random.Random(self.draw(row[ID]))


def _no_files(settings: Settings) -> list[str]:
    return []


@dataclass(frozen=True)
class RowStep:
    """A step that looks at each row alone. `files`: the paths of what it reads besides (their content decides about the
    cache). `version` rises when the same rows and settings come to give others. `costly`: what it gives is kept in the
    cache before the next step begins; else neighbouring steps are done in one pass."""

    work: Callable[[Sequence[Row], Settings, Context], Result]
    files: Callable[[Settings], list[str]] = _no_files
    version: int = 1
    costly: bool = False


@dataclass(frozen=True)
class WholeStep:
    """A step that decides over all rows. `files` and `version` are as in `RowStep`. `asks`: `apply` asks teachers, and
    a dry run ends before it. `in_one_process`: its blocks are done in threads of one process, which wait for others."""

    sign: Callable[[Sequence[Row], Settings, Context], pa.Table]
    decide: Callable[[Sequence[pa.Table], Settings, Context], list[pa.Table]]
    apply: Callable[[Sequence[Row], pa.Table, Settings, Context], Result]
    files: Callable[[Settings], list[str]] = _no_files
    version: int = 1
    asks: bool = False
    in_one_process: bool = False


Step = RowStep | WholeStep


def drop_told(rows: Sequence[Row], verdict: pa.Table, settings: Settings, context: Context) -> Result:
    """Drops the rows that a verdict lists."""
    told = {line["row"]: line for line in verdict.to_pylist()}
    result = Result()
    for number, row in enumerate(rows):
        if (line := told.get(number)) is None:
            result.keep(row)
        else:
            result.drop(row, line["reason"], line["detail"])
    return result


def drops(found: Sequence[tuple[int, str, str]]) -> pa.Table:
    """A verdict for `drop_told`: for each row that goes its number in the block, the reason and the detail."""
    import pyarrow as pa

    schema = pa.schema([("row", pa.int32()), ("reason", pa.string()), ("detail", pa.string())])
    rows, reasons, details = (list(column) for column in zip(*found, strict=True)) if found else ([], [], [])
    return pa.table([rows, reasons, details], schema=schema)
