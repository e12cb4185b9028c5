"""`sweep.space:` the values that are tried, of one key each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

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


def _dimension(value: Any) -> Any:
    """A dimension by its shape. A plain number or word is named here, where pydantic would name three classes."""
    if isinstance(value, list):
        return Choice(choices=value)
    if isinstance(value, Section):
        return value
    if not isinstance(value, dict):
        raise ValueError(
            f"{value!r} is no dimension: write a list of values, {{min: , max: , log: }} or {{ratio_of: , choices: }}"
        )
    kind = RatioOf if "ratio_of" in value else Choice if "choices" in value else Range
    return kind.model_validate(value)


Dimension = Annotated[
    Choice | Range | RatioOf, BeforeValidator(_dimension, json_schema_input_type=list[Any] | Choice | Range | RatioOf)
]
