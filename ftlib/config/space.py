"""`sweep.space:` the values that are tried, of one key each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ftlib.config.section import Section


class Choice(Section):
    """A list of values: `[8, 16, 32]`, which is short for `{choices: [8, 16, 32]}`."""

    choices: list[Any] = Field(min_length=1)
    """The values. A trial has one of them."""


class Range(Section):
    """A range of numbers: `{min: 1.0e-5, max: 1.0e-3, log: true}`. The number is whole where its key is whole."""

    min: float
    """The smallest value."""
    max: float
    """The largest value."""
    log: bool = False
    """Draw by magnitude: as many values between 1e-5 and 1e-4 as between 1e-4 and 1e-3."""
    q: float | None = Field(default=None, gt=0)
    """The distance of two values: min, min + q, min + 2 q and so on. null allows every value. It does not go together
    with log."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.min >= self.max:
            raise ValueError(f"min ({self.min:g}) must be below max ({self.max:g})")
        if self.log and self.min <= 0:
            raise ValueError(f"min must be above 0 where log is true, but is {self.min:g}")
        if self.log and self.q is not None:
            raise ValueError("log and q do not go together (Optuna has no such distribution): drop one")
        if self.q is not None and (self.max - self.min) < self.q:
            raise ValueError(f"q ({self.q:g}) is wider than max - min ({self.max - self.min:g})")
        return self


class RatioOf(Section):
    """A multiple of another key: `{ratio_of: adapter.r, choices: [1, 2]}` makes lora_alpha once or twice the rank."""

    ratio_of: str
    """The dotted path of the key that is multiplied. It is another key of the space, or a key of this file."""
    choices: list[float] = Field(min_length=1)
    """The factors. A trial has one of them."""


class Auto(Section):
    """`auto`: the published range or list (ftlib/sweeps/priors.yaml), put in its place when the experiment is read."""

    auto: Literal[True]
    """auto takes the published values of the key, for the method, the adapter and the size of the model."""


class Variants(Section):
    """A choice among mappings, each with keys of its own: `adapter: [{type: lora, r: [8, 16]}, {type: ia3}]`.

    A value of a mapping is a value, a list of values, a range or a ratio, as in the space. A key with a dot is a path
    of its own: {type: ia3, train.learning_rate: {min: 1.0e-3, max: 1.0e-1, log: true}}. null is no such section.
    """

    variants: list[dict[str, Any] | None] = Field(min_length=1)
    """The mappings. A trial has one of them."""

    @model_validator(mode="after")
    def _keys_are_dimensions(self) -> Variants:
        for label in self.labels:
            for key, value in self.of(label).items():
                try:
                    _ = _dimension(value) if isinstance(value, list | dict) else None
                except ValidationError as error:
                    said = error.errors()[0]["msg"].removeprefix("Value error, ")
                    raise ValueError(f"{label}.{key}: {said}") from None
        return self

    @property
    def labels(self) -> list[str]:
        """What each mapping is called: its type where that tells them apart, else its place."""
        types = ["none" if told is None else told.get("type") for told in self.variants]
        told_apart = all(isinstance(name, str) for name in types) and len(set(types)) == len(types)
        return [str(name) if told_apart else str(place) for place, name in enumerate(types)]

    def of(self, label: str) -> dict[str, Any]:
        """The mapping of a label, empty for null."""
        return self.variants[self.labels.index(label)] or {}


def _dimension(value: Any) -> Any:
    """A dimension by its shape. A plain number or word is named here, where pydantic would name three classes."""
    if isinstance(value, list):
        return Choice(choices=value)
    if value == "auto":
        return Auto(auto=True)
    if isinstance(value, Section):
        return value
    if not isinstance(value, dict):
        raise ValueError(
            f"{value!r} is no dimension: write a list of values, {{min: , max: , log: }} or {{ratio_of: , choices: }}"
        )
    kind: type[Section] = RatioOf if "ratio_of" in value else Choice if "choices" in value else Range
    kind = Variants if "variants" in value else Auto if "auto" in value else kind
    return kind.model_validate(value)


Dimension = Annotated[
    Choice | Range | RatioOf | Variants | Auto,
    BeforeValidator(
        _dimension, json_schema_input_type=list[Any] | Choice | Range | RatioOf | Variants | Auto | Literal["auto"]
    ),
]
SECTIONS = ("model", "data", "method", "adapter", "train")  # whose mappings are variants
Plain = Choice | Range | RatioOf


@dataclass(frozen=True)
class Leaf:
    """One thing that a searcher draws. `name` is what the searcher calls it, `path` the key that it sets; `only` is the
    variant in which it is drawn, as (the name of the choice, its value)."""

    name: str
    path: str
    dimension: Plain
    only: tuple[str, str] | None = None


def leaves(space: Mapping[str, Dimension]) -> Iterator[Leaf]:
    """What a searcher draws, a choice among variants before their keys. Raises ValueError for a key of a variant that
    is no dimension."""
    for path, dimension in space.items():
        if isinstance(dimension, Auto):
            continue  # it is replaced before anything is drawn
        if not isinstance(dimension, Variants):
            yield Leaf(path, path, dimension)
            continue
        yield Leaf(path, path, Choice(choices=dimension.labels))
        for label in dimension.labels:
            for key, value in dimension.of(label).items():
                if isinstance(value, list | dict):
                    yield Leaf(f"{path}.{label}.{key}", _path(path, key), _dimension(value), (path, label))


def settings_of(path: str, variants: Variants, label: str) -> dict[str, Any]:
    """What a variant sets whatever is drawn: dotted paths to values."""
    told = variants.variants[variants.labels.index(label)]
    if told is None:
        return {path: None}
    return {_path(path, key): value for key, value in told.items() if not isinstance(value, list | dict)}


def as_dimension(value: Any) -> Dimension:
    """A dimension as it is written. Raises ValueError for what is none."""
    found: Dimension = _dimension(value)
    return found


def with_variants(space: Any) -> Any:
    """A space as it is written, in which a list of mappings at a section's name is a choice among variants."""
    if not isinstance(space, dict):
        return space
    chosen = {path: {"variants": value} for path, value in space.items() if path in SECTIONS and _are_mappings(value)}
    return {path: chosen.get(path, value) for path, value in space.items()}


def _are_mappings(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def _path(section: str, key: str) -> str:
    return key if "." in key else f"{section}.{key}"
