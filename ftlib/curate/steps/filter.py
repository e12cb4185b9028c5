"""`filter`: rows that are dropped for what they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ftlib.config.data import printed
from ftlib.config.recipe.texts import FilterStep, Where
from ftlib.curate.languages import language
from ftlib.curate.quality import WRITTEN, of_text, scored
from ftlib.curate.repetition import repetition
from ftlib.curate.rows import Row, text_of
from ftlib.curate.step import Context, Result, RowStep, Step
from ftlib.curate.teachers.jobs import Asking, Job, Writing, asking

Why = str | None  # why a row goes, in a few words; None where it stays
Check = tuple[str, Callable[[str, Row], Why]]


def work(rows: Sequence[Row], settings: FilterStep, context: Context) -> Result:
    """Drops each row by the first condition that it does not fulfil."""
    checks = list(_checks(settings))
    result = Result()
    for row in rows:
        found = _found(row, settings, checks)
        if found is None:
            result.keep(row)
        else:
            result.drop(row, *found)
    return result


def judge(writing: Writing) -> Job:
    """The same for one row, with a judge's score as the last condition: who has failed before is not judged."""
    row, settings, result = writing.row, writing.settings, Result()
    found = _found(row, settings, writing.shared)
    if found is None:
        quality = settings.quality
        asked = of_text(quality.rubric, text_of(row, settings.fields, but="label"))
        (reply,) = yield [writing.request(asked, 0, quality.judge, 0.0, WRITTEN)]
        score = scored(reply)
        if score is None:
            found = "no_score", "the judge writes no score from 0 to 10"
        elif score < quality.at_least:
            found = "quality", f"{score:g} of 10"
    if found is None:
        result.keep(row)
    else:
        result.drop(row, *found)
    return result


def _found(row: Row, settings: FilterStep, checks: Sequence[Check]) -> tuple[str, str] | None:
    """The first condition that a row does not fulfil, and why."""
    text = text_of(row, settings.fields, but="label")
    return next(((name, why) for name, check in checks if (why := check(text, row)) is not None), None)


def _checks(settings: FilterStep) -> Iterator[Check]:
    for name in ("min_chars", "max_chars", "min_words", "max_words"):
        if (limit := getattr(settings, name)) is not None:
            yield name, _length(limit, name.startswith("min"), name.endswith("words"))
    if (most := settings.max_repetition) is not None:
        yield "max_repetition", lambda text, row: _above(repetition(text), most)
    for field, condition in settings.where.items():
        yield f"where.{field}", lambda text, row, f=field, c=condition: why_not(row.get(f), c)  # type: ignore[misc]
    if (wanted := settings.language) is not None:
        yield "language", lambda text, row: None if (found := language(text)) in wanted else f"is {found}"


def _length(limit: int, least: bool, words: bool) -> Callable[[str, Row], Why]:
    def check(text: str, row: Row) -> Why:
        length = len(text.split()) if words else len(text)
        wrong = length < limit if least else length > limit
        return f"{length:,} {'words' if words else 'characters'}" if wrong else None

    return check


def _above(share: float, most: float) -> Why:
    return f"{share:.2f} of it" if share > most else None


def why_not(value: Any, where: Where) -> Why:
    """Why a field does not fulfil a condition."""
    if value is None:
        return "is not there"
    shown = printed(value)
    if where.equals is not None and shown not in _listed(where.equals):
        return f"is {_short(shown)}"
    if where.not_equals is not None and shown in _listed(where.not_equals):
        return f"is {_short(shown)}"
    if where.matches is not None and re.search(where.matches, shown) is None:
        return f"is {_short(shown)}"
    if where.at_least is None and where.at_most is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return f"is no number: {_short(shown)}"
    low = where.at_least is not None and not number >= where.at_least
    return f"is {shown}" if low or (where.at_most is not None and not number <= where.at_most) else None


def _listed(value: Any) -> set[str]:
    return {printed(one) for one in (value if isinstance(value, list) else [value])}


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


STEP = RowStep(work)


def step_for(settings: FilterStep) -> Step:
    """A row step; with a judge, a step that asks."""
    if settings.quality is None:
        return STEP
    return asking(settings, Asking(judge, shared=lambda one: list(_checks(one))))
