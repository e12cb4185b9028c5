"""`steps:` of a recipe: each member is a step's name and its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator

from ftlib.config.recipe.dividing import BalanceStep, SplitStep
from ftlib.config.recipe.looking import DecontaminateStep, DedupeStep, RedactStep
from ftlib.config.recipe.making import AugmentStep, GenerateStep, PairsStep
from ftlib.config.recipe.texts import ChunkStep, CleanStep, FilterStep, LabelsStep
from ftlib.config.section import Section


def _short_for(key: str) -> Callable[[Any], Any]:
    """Makes a list short for the section that has the list as `key`."""
    return lambda value: {key: value} if isinstance(value, list) else value


Redact = Annotated[
    RedactStep | None, BeforeValidator(_short_for("kinds"), json_schema_input_type=RedactStep | list[str] | None)
]
Decontaminate = Annotated[
    DecontaminateStep | None,
    BeforeValidator(_short_for("against"), json_schema_input_type=DecontaminateStep | list[str] | None),
]


class StepSection(Section):
    """One step: a mapping with one key, the step's name. A name alone (`- clean`) is the step with its defaults."""

    clean: CleanStep | None = None
    """Repair texts: encodings, ways of writing a character, space, headers and footers."""
    chunk: ChunkStep | None = None
    """Cut documents into chunks."""
    filter: FilterStep | None = None
    """Drop rows that are too short, too long, repetitive, in another language or of low quality."""
    labels: LabelsStep | None = None
    """Give labels one spelling each."""
    dedupe: DedupeStep | None = None
    """Of rows that are the same or nearly so, keep one."""
    redact: Redact = None
    """Replace personal data and secrets."""
    generate: GenerateStep | None = None
    """Have a teacher write rows."""
    augment: AugmentStep | None = None
    """Add changed copies of rows."""
    pairs: PairsStep | None = None
    """Make pairs of a chosen and a rejected answer."""
    balance: BalanceStep | None = None
    """Keep at most so many rows of each kind."""
    decontaminate: Decontaminate = None
    """Drop rows that stand in tests and benchmarks."""
    split: SplitStep | None = None
    """Divide rows into training, evaluation and test."""

    @model_validator(mode="after")
    def _one_step(self) -> StepSection:
        given = [name for name in STEP_NAMES if getattr(self, name) is not None]
        if len(given) != 1:
            told = " and ".join(given) or "none"
            raise ValueError(f"a step has one name, but this one has {told}: each step is a member of its own")
        return self

    @property
    def name(self) -> str:
        return next(name for name in STEP_NAMES if getattr(self, name) is not None)

    @property
    def settings(self) -> Section:
        found: Section = getattr(self, self.name)
        return found


STEP_NAMES = tuple(StepSection.model_fields)


def _named(value: Any) -> Any:
    """`clean` and {clean: null} in full."""
    if isinstance(value, str):
        return {value: {}}
    if not isinstance(value, dict):
        return value
    return {name: {} if settings in (None, True) else settings for name, settings in value.items()}


Step = Annotated[StepSection, BeforeValidator(_named, json_schema_input_type=str | StepSection)]
