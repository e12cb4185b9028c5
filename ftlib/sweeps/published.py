"""The table of published values (`priors.yaml`): where others began, by method, adapter and size of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from ftlib.config import Choice, Dimension, Experiment, Range, RatioOf
from ftlib.config.loader import parse_yaml
from ftlib.config.section import Section
from ftlib.config.space import Auto, Leaf, as_dimension
from ftlib.errors import ConfigError

TABLE = Path(__file__).with_name("priors.yaml")
HIDDEN = 2000  # the hidden size at which a rate of the table holds


class Row(Section):
    """One claim of the table."""

    key: str
    methods: list[str] | None = None
    adapters: list[str] | None = None
    value: float | None = None
    ratio: float | None = None
    exponents: dict[str, float] = Field(default_factory=dict)
    factors: Range | None = None
    dimension: Any = None
    source: str


@dataclass(frozen=True)
class Shape:
    """What the table asks of a model: its family, and the width of its layers."""

    family: str
    hidden: int | None

    @classmethod
    def of(cls, experiment: Experiment) -> Shape:
        """Reads the model's config, not its weights."""
        from ftlib.models.base import load_config

        config = load_config(experiment.model).get_text_config()
        return cls(str(config.model_type), getattr(config, "hidden_size", None))


@cache
def rows() -> list[Row]:
    """The claims, in the order of the file."""
    return [Row.model_validate(row) for row in parse_yaml(TABLE.read_text(encoding="utf-8"))]


def row_for(experiment: Experiment, key: str, adapter: str | None = None) -> Row | None:
    """The claim on a key for the method and the adapter of an experiment; None where nothing is published."""
    kind = adapter or (experiment.adapter.type if experiment.adapter is not None else "none")
    fitting = (
        row
        for row in rows()
        if row.key == key
        and experiment.method.type in (row.methods or [experiment.method.type])
        and kind in (row.adapters or [kind])
    )
    return next(fitting, None)


def value_of(row: Row, shape: Shape) -> float | None:
    """The value for a model of that shape; None for a row that has a ratio."""
    exponent = next((power for family, power in row.exponents.items() if shape.family.startswith(family)), 0.0)
    if row.value is None or not exponent or not shape.hidden:
        return row.value
    return float(f"{row.value * (HIDDEN / shape.hidden) ** exponent:.2g}")


def published(experiment: Experiment, leaf: Leaf, shape: Shape) -> tuple[Any, Row] | None:
    """A leaf's first value, inside of what the user allows, and the claim that it is from; None where there is none."""
    adapter = leaf.only[1] if leaf.only is not None and leaf.only[0] == "adapter" else None
    row = row_for(experiment, leaf.path, adapter)
    wanted = None if row is None else row.ratio if isinstance(leaf.dimension, RatioOf) else value_of(row, shape)
    if row is None or wanted is None:
        return None
    dimension = leaf.dimension
    if isinstance(dimension, Range):
        value = min(max(wanted, dimension.min), dimension.max)
        if dimension.q:
            value = dimension.min + round((value - dimension.min) / dimension.q) * dimension.q
        return (int(value) if experiment.is_integer(leaf.name) else value), row
    numbers = [one for one in dimension.choices if isinstance(one, int | float) and not isinstance(one, bool)]
    return (min(numbers, key=lambda one: _distance(one, wanted)), row) if numbers else None


def _distance(one: float, wanted: float) -> float:
    return abs(math.log(one / wanted)) if one > 0 and wanted > 0 else abs(one - wanted)


def with_ranges(experiment: Experiment, shape: Shape | None = None) -> tuple[Experiment, str | None]:
    """The experiment with a published dimension in the place of each `auto` of its space, and a sentence that says what
    it took from where. `shape` is that of the model, which is read where it is not given. Raises ConfigError for a key
    on which nothing is published.
    """
    space = experiment.sweep.space if experiment.sweep is not None else {}
    asked = [path for path, found in space.items() if isinstance(found, Auto)]
    if not asked:
        return experiment, None
    shape, tree, told = shape or Shape.of(experiment), experiment.to_dict(), []
    for path in asked:
        row = row_for(experiment, path)
        dimension = None if row is None else dimension_of(row, shape)
        if row is None or dimension is None:
            known = ", ".join(dict.fromkeys(one.key for one in rows()))
            raise ConfigError(
                f"sweep.space.{path}: nothing is published on it for this method and adapter: write its values. There "
                f"are tables of {known}."
            )
        tree["sweep"]["space"][path] = dimension.model_dump()
        told.append(f"{path} ({row.source})")
    return Experiment.parse(tree), f"ranges from published tables: {'; '.join(told)}"


def dimension_of(row: Row, shape: Shape) -> Dimension | None:
    """What `auto` stands for."""
    value = value_of(row, shape)
    if row.factors is not None and value is not None:
        return row.factors.model_copy(update={"min": value * row.factors.min, "max": value * row.factors.max})
    found = as_dimension(row.dimension) if row.dimension is not None else None
    return found if isinstance(found, Choice | Range | RatioOf) else None


__all__ = ["Row", "Shape", "dimension_of", "published", "row_for", "rows", "value_of", "with_ranges"]
