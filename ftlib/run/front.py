"""Which of several trials are better than which where several metrics count: the Pareto front, and the order behind it
(non-dominated sorting, Deb et al. 2002, IEEE TEC 6)."""

from __future__ import annotations

from collections.abc import Sequence

Point = Sequence[float]  # a number for each metric, lower being better
DIGITS = 9  # that are compared: two means of the same scores, added in another order, differ in the sixteenth


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is worse in nothing and better in something."""
    pairs = list(zip(_compared(one), _compared(other), strict=True))
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


def _compared(point: Point) -> list[float]:
    return [float(f"{number:.{DIGITS}g}") for number in point]


def layers(points: Sequence[Point]) -> list[int]:
    """The layer of each point: 0 is the Pareto front, 1 the front of what is left without it, and so on."""
    found, left, layer = [0] * len(points), set(range(len(points))), 0
    while left:
        front = {place for place in left if not any(dominates(points[other], points[place]) for other in left)}
        for place in front:
            found[place] = layer
        left -= front
        layer += 1
    return found


__all__ = ["dominates", "layers"]
