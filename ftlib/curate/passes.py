"""The passes of a recipe over its blocks: neighbouring row steps are done in one pass, and a whole step stands between
two of them. The pass before it ends with its `sign`, the one after it begins with its `apply`.

What a pass makes of a block has as its key the hash of the settings of the pass, of the block before, and of what was
decided about the block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ftlib.config.recipe import Recipe
from ftlib.curate.blocks import notes_table, to_rows, to_table
from ftlib.curate.digest import digest_of_files
from ftlib.curate.rows import Row
from ftlib.curate.step import Context, Note, Result, RowStep, Step, WholeStep
from ftlib.curate.steps import step_of
from ftlib.curate.store import Store, key_of
from ftlib.errors import FtlibError

VERSION = 1  # raise it when the same recipe comes to give other rows

Counts = dict[str, dict[str, Any]]  # of each step: rows in and out, and Counters of reasons


@dataclass(frozen=True)
class KeyedStep:
    """A step at its place in a recipe. `digest` is the hash of all that its results depend on besides rows."""

    context: Context
    settings: Any
    step: Step
    digest: str

    @property
    def key(self) -> str:
        return self.context.key


@dataclass(frozen=True)
class Pass:
    """One way over all blocks: what was decided before is applied, row steps are done, and a whole step signs."""

    begin: KeyedStep | None = None
    rows: tuple[KeyedStep, ...] = ()
    end: KeyedStep | None = None

    @property
    def steps(self) -> list[KeyedStep]:
        return [step for step in (self.begin, *self.rows) if step is not None]

    @property
    def digest(self) -> str:
        signs = [self.end.digest] if self.end else []
        return key_of(VERSION, [step.digest for step in self.steps], signs)


@dataclass(frozen=True)
class Done:
    """What a pass made of one block: the key of its rows (notes and signs are beside), how many there are, and counts
    of each step."""

    key: str
    rows: int
    counts: Counts = field(default_factory=dict)


def keyed_steps(recipe: Recipe) -> list[KeyedStep]:
    """The steps of a recipe with their code. Raises InputError for a step that is not built, and for a file of a step
    that is not there."""
    found = []
    for key, section in recipe.keyed_steps:
        step, settings = step_of(section.name, section.settings), section.settings
        digest = key_of(
            section.name, step.version, settings.model_dump(mode="json"), recipe.seed, key,
            [digest_of_files(file) for file in step.files(settings)],
        )  # fmt: skip
        found.append(KeyedStep(Context(recipe.seed, key), settings, step, digest))
    return found


def passes_of(steps: Sequence[KeyedStep]) -> list[Pass]:
    """The passes that do the steps in order."""
    found, now = [], Pass()
    for step in steps:
        if isinstance(step.step, WholeStep):
            found.append(replace(now, end=step))
            now = Pass(begin=step)
        else:
            now = replace(now, rows=(*now.rows, step))
            if step.step.costly:
                found.append(now)
                now = Pass()
    return [*found, now] if now.steps or not found else found


def do_pass(store: Store, work: Pass, block: str, verdict: str | None) -> Done:
    """Does a pass over a block, unless the store has its result."""
    key = key_of(work.digest, block, verdict)
    about = store.about(key)
    if about is None:
        about = _work(store, work, block, verdict, key)
    return Done(key, about["rows"], about["counts"])


def notes_key(key: str) -> str:
    """The key of the notes beside the rows of a pass."""
    return key_of(key, "notes")


def sign_key(key: str) -> str:
    """The key of the table of signs beside the rows of a pass."""
    return key_of(key, "sign")


def _work(store: Store, work: Pass, block: str, verdict: str | None, key: str) -> dict[str, Any]:
    rows, notes, counts = to_rows(store.get(block)), list[tuple[str, str, Note]](), Counts()
    for step in work.steps:
        result = _done(store, step, rows, verdict)
        _check(step, rows, result)
        notes += [(step.key, "dropped", note) for note in result.dropped]
        notes += [(step.key, "changed", note) for note in result.changed]
        counts[step.key] = counts_of(len(rows), result)
        rows = result.kept
    if work.end is not None:
        assert isinstance(work.end.step, WholeStep)
        store.put(sign_key(key), work.end.step.sign(rows, work.end.settings, work.end.context))
    store.put(notes_key(key), notes_table(notes))
    about = {"rows": len(rows), "counts": counts}
    store.put(key, to_table(rows), about)  # last: with it, all of the block is there
    return about


def counts_of(rows: int, result: Result) -> dict[str, Any]:
    """The counts of a step that made `result` of so many rows."""
    return {
        "in": rows,
        "out": len(result.kept),
        "dropped": Counter(note.reason for note in result.dropped),
        "changed": Counter(note.reason for note in result.changed),
    }


def _done(store: Store, step: KeyedStep, rows: list[Row], verdict: str | None) -> Result:
    if isinstance(step.step, RowStep):
        return step.step.work(rows, step.settings, step.context)
    assert verdict is not None
    return step.step.apply(rows, store.get(verdict), step.settings, step.context)


def _check(step: KeyedStep, rows: list[Row], result: Result) -> None:
    """A row that gets lost without a reason is a defect of a step."""
    lost = len(rows) - len(result.dropped) - len(result.kept)
    if lost > 0:
        raise FtlibError(f"steps: {step.key} lost {lost} rows without a reason. This is a defect of ftlib.")


def total(counts: Iterator[Counts]) -> Counts:
    """The counts of all blocks together."""
    whole: Counts = {}
    for one in counts:
        for key, told in one.items():
            known = whole.setdefault(key, {"in": 0, "out": 0, "dropped": Counter(), "changed": Counter()})
            for name in ("in", "out"):
                known[name] += told[name]
            for name in ("dropped", "changed"):
                known[name].update(told[name])
    return whole
