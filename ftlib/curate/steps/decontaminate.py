"""`decontaminate`: rows dropped that stand in a test or a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ftlib.config.data import DataSection
from ftlib.config.recipe.looking import DecontaminateStep
from ftlib.curate.contamination import FEWEST, contaminated, grams_of
from ftlib.curate.exact_duplicates import digests
from ftlib.curate.near_duplicates import near_rows, signatures
from ftlib.curate.rows import RESERVED, Row, text_of, texts_of
from ftlib.curate.step import Context, Result, RowStep
from ftlib.data.read import find_source
from ftlib.errors import DataError


def work(rows: Sequence[Row], settings: DecontaminateStep, context: Context) -> Result:
    """Drops rows that say the same as a row of the other files, nearly the same, or have 13 words in a row with one."""
    known = _known(tuple(settings.against))
    texts = [text_of(row, settings.fields) for row in rows]
    result = Result()
    reasons = _reasons(texts, known, settings.near)
    for row, (reason, place) in zip(rows, reasons, strict=True):
        if reason:
            result.drop(row, reason, f"like {known['where'][place]}")
        else:
            result.keep(row)
    return result


def _reasons(texts: list[str], known: dict[str, Any], near: float | None) -> list[tuple[str, int]]:
    order = np.argsort(known["digests"], kind="stable")
    own = digests(texts)
    at = np.minimum(np.searchsorted(known["digests"], own, sorter=order), len(order) - 1)
    exact = np.where(known["digests"][order[at]] == own, order[at], -1)
    grams = contaminated(texts, known["grams"])
    alike = near_rows(signatures(texts), known["signatures"], near) if near is not None else np.full(len(texts), -1)
    found = []
    for same, close, words in zip(exact, alike, grams, strict=True):
        place = next((place for place in (same, close, words) if place >= 0), -1)
        reason = "exact" if same >= 0 else "near" if close >= 0 else "words" if words >= 0 else ""
        found.append((reason, int(place)))
    return found


@lru_cache(maxsize=4)
def _known(against: tuple[str, ...]) -> dict[str, Any]:
    """What is known of the rows of the other files: of the whole row, and of each of its longer texts alone."""
    texts: dict[str, str] = {}
    for name in against:
        source = find_source("train", DataSection(train=name), "steps: decontaminate")
        for row in source.rows(header=True):
            fields = {key: value for key, value in row.fields.items() if key not in RESERVED}
            for text in (text_of(fields), *(text for text in texts_of(fields) if len(text.split()) >= FEWEST)):
                texts.setdefault(text, row.where)
    if not texts:
        raise DataError(f"steps: decontaminate: {', '.join(against)} hold no rows.")
    whole = list(texts)
    return {
        "where": list(texts.values()),
        "digests": digests(whole),
        "signatures": signatures(whole),
        "grams": grams_of(whole),
    }


def _files(settings: DecontaminateStep) -> list[str]:
    return list(settings.against)


STEP = RowStep(work, files=_files)
