"""The straight lines that are drawn on a page: what tables are ruled with."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple

THIN = 2.5  # points: a filled box that is thinner is a rule
SHORTEST = 8.0  # points: a shorter one is a fraction's bar or part of a drawing
DOT = 6.0  # points: a bullet's width and height at most
MAX_SEGMENTS = 5_000  # of a page: a drawing has more, and is no table


class Rule(NamedTuple):
    """From `low` to `high` along its direction, at `at` across it."""

    at: float
    low: float
    high: float


class Rules(NamedTuple):
    """The `across` ones (from the top), the `down` ones (from the left), and the short level `dashes`. `dots` are the
    (right edge, middle) of small round or square things: a browser draws a list's bullets so."""

    across: list[Rule]
    down: list[Rule]
    dashes: list[Rule]
    dots: list[tuple[float, float]]


def page_rules(page: Any) -> Rules:
    """Those of a pypdfium2 page; pieces that touch are one. None of a page with more than MAX_SEGMENTS."""
    across: list[Rule] = []
    down: list[Rule] = []
    dots: list[tuple[float, float]] = []
    for number, (x0, y0, x1, y1) in enumerate(_boxes(page)):
        if number >= MAX_SEGMENTS:
            return Rules([], [], [], [])
        if THIN < x1 - x0 <= DOT and abs((x1 - x0) - (y1 - y0)) < 1:
            dots.append((x1, (y0 + y1) / 2))
        elif y1 - y0 <= THIN and x1 - x0 > y1 - y0:
            across.append(Rule((y0 + y1) / 2, x0, x1))
        elif x1 - x0 <= THIN:
            down.append(Rule((x0 + x1) / 2, y0, y1))
    level = _merged(across)[::-1]
    long = [rule for rule in level if rule.high - rule.low >= SHORTEST]
    dashes = [rule for rule in level if rule.high - rule.low < SHORTEST]
    return Rules(long, [rule for rule in _merged(down) if rule.high - rule.low >= SHORTEST], dashes, dots)


def _boxes(page: Any) -> Iterator[tuple[float, float, float, float]]:
    import pypdfium2.raw as pdfium

    for thing in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_PATH], max_depth=2):
        left, bottom, right, top = thing.get_bounds()
        if min(right - left, top - bottom) <= THIN or max(right - left, top - bottom) <= DOT:
            yield left, bottom, right, top
        else:
            yield from _segments(thing, pdfium)


def _segments(thing: Any, pdfium: Any) -> Iterator[tuple[float, float, float, float]]:
    """The upright and level strokes of a path that draws several, as a table's frame."""
    matrix = thing.get_matrix()
    x, y = ctypes.c_float(), ctypes.c_float()
    last: tuple[float, float] | None = None
    for index in range(min(pdfium.FPDFPath_CountSegments(thing), MAX_SEGMENTS)):
        segment = pdfium.FPDFPath_GetPathSegment(thing, index)
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        point = matrix.on_point(x.value, y.value)
        kind = pdfium.FPDFPathSegment_GetType(segment)
        if kind == pdfium.FPDF_SEGMENT_LINETO and last is not None:
            low, high = (
                (min(last[0], point[0]), min(last[1], point[1])),
                (max(last[0], point[0]), max(last[1], point[1])),
            )
            if min(high[0] - low[0], high[1] - low[1]) <= 0.5:
                yield *low, *high
        last = point


def _merged(rules: list[Rule]) -> list[Rule]:
    """Rules on one line that touch, as one; by their place."""
    found: list[Rule] = []
    for rule in sorted(rules, key=lambda rule: (round(rule.at), rule.low)):
        if found and abs(found[-1].at - rule.at) <= THIN and rule.low <= found[-1].high + THIN:
            found[-1] = Rule(found[-1].at, found[-1].low, max(found[-1].high, rule.high))
        else:
            found.append(rule)
    return found
