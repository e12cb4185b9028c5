"""`clean`: texts as they were meant.

ftfy (Speer 2019, doi:10.5281/zenodo.2591652) repairs what was decoded wrongly. Typographic quotes, entities of HTML and
wide letters stay: they may be what a row is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ftlib.config.recipe.texts import CleanStep
from ftlib.curate.rows import Row, texts_of, with_texts
from ftlib.curate.step import Context, Result, RowStep
from ftlib.errors import InputError

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphen, spaces without width; joiners of letters stay
SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
LINES = re.compile(r"\r\n?|[\u2028\u2029\u0085]")
ENDS = re.compile(r"[ \t]+$", re.MULTILINE)
GAPS = re.compile(r"\n{3,}")


def work(rows: Sequence[Row], settings: CleanStep, context: Context) -> Result:
    """Cleans each row. A row of which nothing is left is dropped."""
    if settings.boilerplate:
        raise InputError("steps: clean.boilerplate is not built yet: leave it out.")
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


STEP = RowStep(work)
