"""The first points of a sweep: from this user's own finished runs on the same base and method, and from published
tables.

Losses of two data sets are no numbers of one scale. So an earlier run says of its points in which quantile of its own
trials they came (Salinas et al. 2020, A Quantile-based Approach for Hyperparameter Transfer Learning). Where many runs
say the same of a region of the space, its middle is tried first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlib.config import Experiment, Range
from ftlib.config.space import Leaf
from ftlib.errors import FtlibError
from ftlib.files.json_files import read_json
from ftlib.run.directory import Run
from ftlib.run.layout import POINT, RESOLVED
from ftlib.run.leaderboard import leaderboard
from ftlib.sweeps.published import Row, Shape, published

FIRST = 4  # points that a sweep begins with
LEAST = 6  # trials of an earlier run that say something
NEWEST = 20  # earlier runs that are read
WIDTH = 0.15  # of a kernel, in shares of a dimension
APART = 0.12  # of two first points, in the same
STEP = 3.0  # a rate above and below the published one

Point = dict[str, Any]


@dataclass(frozen=True)
class Past:
    """An earlier run: its points by the names of the space, and each one's quantile, 0 being the best."""

    name: str
    points: list[Point]
    quantiles: list[float]


@dataclass(frozen=True)
class Prior:
    """What a sweep begins with, and the line that says where it is from."""

    points: list[Point]
    sentence: str


def prior(experiment: Experiment, folder: Path, but: str) -> Prior:
    """The first points; `folder` has this user's runs, `but` is the name of the run that begins."""
    assert experiment.sweep is not None
    leaves = experiment.sweep.leaves
    pasts = past_runs(experiment, folder, but)
    own = from_past(leaves, pasts, FIRST - 1 if pasts else 0)
    told, sources = from_tables(experiment, Shape.of(experiment))
    others = [point for point in told if all(apart(leaves, point, one) > APART for one in own)][: FIRST - len(own)]
    said = []
    if own:
        base = Path(experiment.model.name_or_path).name
        names = ", ".join(past.name for past in pasts[:3]) + (f" and {len(pasts) - 3} more" if len(pasts) > 3 else "")
        said.append(f"{len(own)} from finished runs on {base} with {experiment.method.type} ({names})")
    if others:
        said.append(f"{len(others)} from published tables ({'; '.join(sources)})")
    return Prior([*own, *others], f"first points: {', '.join(said) or 'none, nothing is known of these keys'}")


def past_runs(experiment: Experiment, folder: Path, but: str) -> list[Past]:
    """The newest finished runs on the same base and method that say something of this space, the newest first."""
    assert experiment.sweep is not None
    names = {leaf.name for leaf in experiment.sweep.leaves}
    found: list[Past] = []
    for file in sorted(folder.glob(f"*/{RESOLVED}"), key=lambda path: path.stat().st_mtime, reverse=True):
        if file.parent.name != but and len(found) < NEWEST and _is_like(experiment, file):
            past = _past(Run(file.parent), names)
            found += [past] if past is not None else []
    return found


def _is_like(experiment: Experiment, file: Path) -> bool:
    try:
        told = (read_json(file, dict) or {}).get("experiment") or {}
        model, adapter = told.get("model") or {}, told.get("adapter") or {}
        kind = experiment.adapter.type if experiment.adapter is not None else None
        base = experiment.model
        same = (model.get("name_or_path"), model.get("gguf_file")) == (base.name_or_path, base.gguf_file)
        method = (told.get("method") or {}).get("type") == experiment.method.type
        return bool(same and method and adapter.get("type") == kind and told.get("sweep"))
    except (FtlibError, AttributeError):  # a damaged run, or one of somebody else's making, says nothing
        return False


def _past(run: Run, names: set[str]) -> Past | None:
    try:
        ranked = [row for row in leaderboard(run).rows if row.rank is not None]
        points = [read_json(run.trial(row.trial).path / POINT, dict) or {} for row in ranked]
    except FtlibError:
        return None
    known = [{name: value for name, value in point.items() if name in names} for point in points]
    if len(ranked) < LEAST or not any(known):
        return None
    return Past(run.name, known, [(place + 0.5) / len(ranked) for place in range(len(ranked))])


def from_past(leaves: Sequence[Leaf], pasts: Sequence[Past], count: int) -> list[Point]:
    """At most so many points that were tried, each in the best of its region, and apart from each other."""
    tried = [point for past in pasts for point in past.points if _fits(leaves, point)]
    order = sorted(tried, key=lambda point: _expected(leaves, point, pasts))
    chosen: list[Point] = []
    for point in order:
        if len(chosen) < count and all(apart(leaves, point, one) > APART for one in chosen):
            chosen.append(point)
    return chosen


def _expected(leaves: Sequence[Leaf], point: Point, pasts: Sequence[Past]) -> float:
    """The quantile that each earlier run expects of a point (Nadaraya-Watson), all runs weighing the same."""
    told = []
    for past in pasts:
        weights = [math.exp(-0.5 * (apart(leaves, point, other) / WIDTH) ** 2) for other in past.points]
        prior = 1.0  # a trial in the middle, so that one lucky neighbour does not decide
        sums = sum(weight * quantile for weight, quantile in zip(weights, past.quantiles, strict=True))
        told.append((sums + 0.5 * prior) / (sum(weights) + prior))
    return sum(told) / len(told)


def apart(leaves: Sequence[Leaf], one: Point, other: Point) -> float:
    """The distance of two points: of each dimension that both have, in shares of it, the root of the mean square."""
    pairs = [(_place(leaf, one), _place(leaf, other)) for leaf in leaves]
    squares = [(mine - theirs) ** 2 for mine, theirs in pairs if mine is not None and theirs is not None]
    return math.sqrt(sum(squares) / len(squares)) if squares else 1.0


def _place(leaf: Leaf, point: Point) -> float | None:
    """Where a value is in its dimension, from 0 to 1; None where it is not in it."""
    value, dimension = point.get(leaf.name), leaf.dimension
    if value is None:
        return None
    if isinstance(dimension, Range):
        if not isinstance(value, int | float) or not dimension.min <= value <= dimension.max:
            return None
        low, high, at = (math.log(x) if dimension.log else x for x in (dimension.min, dimension.max, value))
        return (at - low) / (high - low)
    if value not in dimension.choices:
        return None
    return dimension.choices.index(value) / max(len(dimension.choices) - 1, 1)


def _fits(leaves: Sequence[Leaf], point: Point) -> bool:
    """Whether all that an earlier point says is allowed by this space."""
    return all(_place(leaf, point) is not None for leaf in leaves if leaf.name in point) and bool(point)


def from_tables(experiment: Experiment, shape: Shape) -> tuple[list[Point], list[str]]:
    """The published point, and the same with a rate above and one below; and where they are from."""
    assert experiment.sweep is not None
    found: dict[str, tuple[Any, Row]] = {}
    for leaf in experiment.sweep.leaves:
        told = published(experiment, leaf, shape)
        if told is not None and (leaf.only is None or found.get(leaf.only[0], (None,))[0] == leaf.only[1]):
            found[leaf.name] = told
    if not found:
        return [], []
    point: Point = {name: value for name, (value, _) in found.items()}
    points = [point]
    for leaf in experiment.sweep.leaves:
        if leaf.path == "train.learning_rate" and leaf.name in point and isinstance(leaf.dimension, Range):
            rates = [point[leaf.name] * factor for factor in (STEP, 1 / STEP)]
            points += [{**point, leaf.name: rate} for rate in rates if leaf.dimension.min <= rate <= leaf.dimension.max]
    sources = dict.fromkeys(f"{row.key}: {row.source}" for _, row in found.values())
    return points, list(sources)


__all__ = ["Past", "Prior", "apart", "from_past", "from_tables", "past_runs", "prior"]
