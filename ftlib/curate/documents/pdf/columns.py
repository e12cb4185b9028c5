"""The order in which a person reads the pieces of a page: columns from left to right, between what spans them.

A gutter is a strip that almost no piece crosses, with text on both sides: lines that fill their column, or have some
words. A table's cells do neither, most often. Pieces that cross it (a title, a wide figure's caption) part the page
into bands; within a band the left column is read before the right one.
"""

from __future__ import annotations

from collections.abc import Iterable

from ftlib.curate.documents.pdf.lines import SAME_LINE, Line

NARROWEST = 7.0  # points: a gutter
CROSSED = 0.12  # of the pieces may cross a gutter
ROWS = 5  # of text that a column has at the least
WIDE = 10  # times its font's size is a column of text at the least: one of numbers is narrower
FULL, OFTEN = 0.4, 0.4  # of its column's width have this share of its lines
WORDS = 3  # has the middle line of a column of text, where its lines are short


def columns(parts: list[Line]) -> list[list[Line]]:
    """Pieces (from the top) as columns in the order of reading."""
    gutter = _gutter(parts)
    if gutter is None:
        return [parts] if parts else []
    across = [part.y for part in parts if part.x0 < gutter < part.x1]
    ordered: list[list[Line]] = []
    band: list[Line] = []
    spanning: list[Line] = []
    for part in parts:
        if any(abs(part.y - y) <= SAME_LINE * part.size for y in across):
            ordered += _sides(band, gutter)
            band = []
            spanning.append(part)
        else:
            ordered += [spanning] if spanning else []
            spanning = []
            band.append(part)
    return ordered + ([spanning] if spanning else []) + _sides(band, gutter)


def _sides(band: list[Line], gutter: float) -> list[list[Line]]:
    left = [part for part in band if part.x1 <= gutter]
    right = [part for part in band if part.x1 > gutter]
    return columns(left) + columns(right)


def _gutter(parts: list[Line]) -> float | None:
    """The x of the widest gutter's middle; None where the pieces are one column."""
    if len(parts) < 2 * ROWS:
        return None
    left, right = min(part.x0 for part in parts), max(part.x1 for part in parts)
    strips = _strips(parts, left, right)
    good = [(end - start, (start + end) / 2) for start, end in strips if _parts_text(parts, (start + end) / 2)]
    return max(good)[1] if good else None


def _strips(parts: list[Line], left: float, right: float) -> list[tuple[float, float]]:
    """Intervals of x that few pieces cover, away from the edges."""
    start, width = int(left), int(right) - int(left) + 2
    steps = [0] * (width + 1)
    for part in parts:
        steps[max(0, int(part.x0) - start)] += 1
        steps[min(width, max(0, int(part.x1 + 1) - start))] -= 1
    found: list[tuple[float, float]] = []
    covered, since = 0, None
    for offset, step in enumerate(steps):
        covered += step
        free = covered <= CROSSED * len(parts) and 0.15 * width < offset < 0.85 * width
        if free and since is None:
            since = offset
        elif not free and since is not None:
            found.append((start + since, start + offset))
            since = None
    return [(low, high) for low, high in found if high - low >= NARROWEST]


def _parts_text(parts: list[Line], gutter: float) -> bool:
    sides = [part for part in parts if part.x1 <= gutter], [part for part in parts if part.x0 >= gutter]
    return all(_is_text(side) for side in sides)


def _is_text(side: list[Line]) -> bool:
    if len({round(part.y) for part in side}) < ROWS:
        return False
    width = max(part.x1 for part in side) - min(part.x0 for part in side)
    full = sum(part.x1 - part.x0 >= FULL * width for part in side)
    words = _middle(len(part.words) for part in side)
    return width >= WIDE * _middle(part.size for part in side) and (full >= OFTEN * len(side) or words >= WORDS)


def _middle(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
