"""`clean`: texts as they were meant.

ftfy (Speer 2019, doi:10.5281/zenodo.2591652) repairs what was decoded wrongly. Typographic quotes, entities of HTML and
wide letters stay: they may be what a row is about.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ftlib.config.recipe.texts import CleanStep
from ftlib.curate.boilerplate import LEAST, SHARE, line_shape, without
from ftlib.curate.draws import hash_of
from ftlib.curate.rows import ID, Row, texts_of, with_texts
from ftlib.curate.signs import column
from ftlib.curate.step import Context, Note, Result, RowStep, Step, WholeStep

if TYPE_CHECKING:
    import pyarrow as pa

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphen, spaces without width; joiners of letters stay
SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
LINES = re.compile(r"\r\n?|[\u2028\u2029\u0085]")
ENDS = re.compile(r"[ \t]+$", re.MULTILINE)
GAPS = re.compile(r"\n{3,}")


def work(rows: Sequence[Row], settings: CleanStep, context: Context) -> Result:
    """Cleans each row. A row of which nothing is left is dropped."""
    changes = _changes(settings)
    result = Result()
    for row in rows:
        now, done = row, []
        for name, change in changes:
            before, now = now, with_texts(now, change, settings.fields)
            if now is not before:
                done.append(name)
        if not any(text.strip() for text in texts_of(now)):
            result.drop(row, "empty")
        elif done:
            result.change(now, done[0], ", ".join(done))
        else:
            result.keep(row)
    return result


def _changes(settings: CleanStep) -> list[tuple[str, Callable[[str], str]]]:
    wanted = {"unicode": repaired, "whitespace": spaced}
    return [(name, change) for name, change in wanted.items() if getattr(settings, name)]


def repaired(text: str) -> str:
    """The text as it was before it was decoded wrongly, each character written in one way (NFC)."""
    if text.isascii():
        return text
    fix, config = _ftfy()
    fixed: str = fix(text, config)
    return fixed


@cache
def _ftfy() -> tuple[Any, Any]:
    from ftlib.curate.optional import needed

    ftfy = needed("ftfy")
    keep: Any = False
    config = ftfy.TextFixerConfig(
        unescape_html=keep,
        uncurl_quotes=keep,
        fix_character_width=keep,
        fix_line_breaks=keep,
        remove_control_chars=keep,
        explain=keep,
        normalization="NFC",
    )
    return ftfy.fix_text, config


def spaced(text: str) -> str:
    """The text without control characters and without space that nobody sees."""
    if not text.isascii():
        text = SPACES.sub(" ", INVISIBLE.sub("", text))
    text = GAPS.sub("\n\n", ENDS.sub("", CONTROL.sub("", LINES.sub("\n", text))))
    return text.strip()


# --- boilerplate: lines are counted over all rows before one is removed ----------------------------------------------


def sign(rows: Sequence[Row], settings: CleanStep, context: Context) -> pa.Table:
    """The hashes of the lines of a block, each with the number of rows that have it; and the number of rows."""
    import pyarrow as pa

    counts: Counter[int] = Counter()
    for row in rows:
        lines = (line for text in texts_of(row, settings.fields) for line in text.splitlines() if line.strip())
        counts.update({hash_of(line_shape(line)) for line in lines})
    known = sorted(counts)
    columns = [[0, *known], [len(rows), *(counts[line] for line in known)]]  # line 0 counts the rows
    return pa.table(columns, schema=pa.schema([("line", pa.uint64()), ("rows", pa.int64())]))


def decide(signs: Sequence[pa.Table], settings: CleanStep, context: Context) -> list[pa.Table]:
    """The lines that go: those that SHARE of the rows have, and LEAST rows."""
    import pyarrow as pa

    lines, place = np.unique(column(signs, "line"), return_inverse=True)
    counts = np.bincount(place, weights=column(signs, "rows"))
    repeated = lines[(counts >= max(LEAST, SHARE * counts[0])) & (lines > 0)]
    return [pa.table({"line": repeated})] * len(signs)


def apply(rows: Sequence[Row], verdict: pa.Table, settings: CleanStep, context: Context) -> Result:
    """Removes the lines, then cleans."""
    repeated = frozenset(verdict["line"].to_pylist())

    def change(text: str) -> str:
        shapes = {shape for line in text.splitlines() if hash_of(shape := line_shape(line)) in repeated}
        return without(text, frozenset(shapes))[0]

    bare = [with_texts(row, change, settings.fields) for row in rows]
    result = work(bare, settings, context)
    told = {note.row[ID] for note in result.changed}
    was = {row[ID]: row for row in rows}
    result.changed += [
        Note(row, "boilerplate") for row in result.kept if row[ID] not in told and row is not was[row[ID]]
    ]
    return result


STEP = RowStep(work)
WITHOUT_BOILERPLATE = WholeStep(sign, decide, apply)


def step_for(settings: CleanStep) -> Step:
    """Which lines are boilerplate is known when all rows are."""
    return WITHOUT_BOILERPLATE if settings.boilerplate else STEP
