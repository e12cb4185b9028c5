"""A recipe: the whole YAML file as one frozen object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, create_model, model_validator

from ftlib.config.loader import parse_override, read_mapping, set_dotted
from ftlib.config.messages import explain
from ftlib.config.recipe.source import Source, SourceSection
from ftlib.config.recipe.step import Step, StepSection
from ftlib.config.section import Section
from ftlib.errors import ConfigError
from ftlib.files.urls import is_url, why_no_place

FROM = "The sources of the rows, in order: files, folders and data sets, each with its kind."

if TYPE_CHECKING:

    class _Sourced(Section):
        """A recipe with the key `from`."""
else:  # `from` is a word of Python
    _Sourced = create_model(
        "_Sourced",
        __base__=Section,
        **{"from": (Annotated[list[Source], Field(min_length=1, description=FROM)], ...)},
    )


class Recipe(_Sourced):
    """One YAML file. `Recipe.load(path, overrides)` is the only way in for the command line."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """The name of the data in the registry: an experiment names it as data:NAME."""
    steps: list[Step] = Field(default_factory=list)
    """What is done with the rows, in order."""
    seed: int = 0
    """The seed of all that is drawn: which rows are held out, which rows of a label stay."""
    storage: str | None = None
    """Where blocks and results are kept between builds: a folder, or a URL. null is data/ in FTLIB_HOME."""

    @model_validator(mode="after")
    def _can_be_stored(self) -> Recipe:
        if self.storage is not None and is_url(self.storage) and (why := why_no_place(self.storage)) is not None:
            raise ValueError(f"storage: {why}".removesuffix("."))
        splits = [number for number, step in enumerate(self.steps) if step.name == "split"]
        if splits and splits != [len(self.steps) - 1]:
            raise ValueError(f"steps.{splits[0]}.split: a recipe has one split, and it is the last step")
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """Reads, overrides and validates a file. Raises ConfigError with every problem, one to a line."""
        tree = read_mapping(path, "a recipe")
        for override in overrides:
            set_dotted(tree, *parse_override(override))
        return cls.parse(tree, str(path))

    @classmethod
    def parse(cls, tree: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """Validates a mapping. `source` stands before each message."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(explain(error, cls, source)) from None

    @property
    def sources(self) -> list[SourceSection]:
        """The key `from`."""
        found: list[SourceSection] = getattr(self, "from")
        return found

    @property
    def keyed_steps(self) -> list[tuple[str, StepSection]]:
        """Each step with a key that no other has: `filter`, and `filter-2` for the second of that name."""
        names = [step.name for step in self.steps]
        keys = [
            name if names[:place].count(name) == 0 else f"{name}-{names[:place].count(name) + 1}"
            for place, name in enumerate(names)
        ]
        return list(zip(keys, self.steps, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as it was written, as plain YAML and JSON values: defaults are left out."""
        return self.model_dump(mode="json", exclude_unset=True)
