"""Steps that decide over all rows: how many of each kind, and which are for training and which are not."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ftlib.config.section import Section

TIMES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*x\s*")


def _most(value: Any) -> Any:
    if isinstance(value, str):
        found = TIMES.fullmatch(value)
        if found is None or float(found[1]) < 1:
            raise ValueError(f"'{value}' is neither a number of rows nor a multiple of 1 or more, such as 4x")
    return value


class BalanceStep(Section):
    """`balance:` no kind of row has too many. Which rows of a kind stay is drawn by the recipe's seed."""

    by: str = "label"
    """The field whose values are the kinds."""
    at_most: Annotated[Annotated[int, Field(ge=1)] | str, BeforeValidator(_most)]
    """The most rows of a kind: a number, or 4x for four times as many as the rarest kind has."""

    def most(self, rarest: int) -> int:
        """The most rows of a kind, where the rarest kind has `rarest` rows."""
        if isinstance(self.at_most, int):
            return self.at_most
        found = TIMES.fullmatch(self.at_most)
        assert found is not None
        return int(float(found[1]) * rarest)


class SplitStep(Section):
    """`split:` rows for the test and for evaluation; the others are trained on. Rows whose texts are the same stay on
    one side."""

    test: float = Field(default=0.0, ge=0, lt=1)
    """The share of rows for the test."""
    eval: float = Field(default=0.0, ge=0, lt=1)
    """The share of rows that trials are compared on."""
    stratify: str | None = None
    """A field each of whose values gives its share. null looks at none."""
    group: str | None = None
    """A field whose rows stay together on one side, such as the document that they come from."""
    same: list[str] | None = None
    """The fields by which rows count as the same. null takes all texts of a row but that of stratify."""

    @model_validator(mode="after")
    def _leaves_rows(self) -> SplitStep:
        if self.test + self.eval >= 1:
            raise ValueError(f"test ({self.test:g}) and eval ({self.eval:g}) leave no row to train on")
        if not self.test + self.eval:
            raise ValueError("say a share: test: 0.1, eval: 0.1, or both")
        return self
