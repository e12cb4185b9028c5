"""Steps that compare rows with each other and with other files, and that look for what must not be in them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftlib.config.section import Section

PersonalData = Literal["email", "phone", "card", "iban", "secret", "national_id", "ip"]


class DedupeStep(Section):
    """`dedupe:` of rows that say the same, one stays."""

    exact: bool = True
    """Drop rows whose texts are the same but for case and space."""
    near: float | None = Field(default=None, gt=0, le=1)
    """Drop rows whose texts are at least so alike: the share of groups of words that two texts have in common
    (Jaccard), found by MinHash (Broder 1997). null looks for no near duplicates."""
    keep: Literal["first", "longest"] = "first"
    """Which of them stays."""
    fields: list[str] | None = None
    """The fields that are compared. null compares all texts of a row."""


class RedactStep(Section):
    """`redact:` personal data and secrets replaced by their kind: [EMAIL]. A list is short for `kinds`."""

    kinds: list[PersonalData] = Field(min_length=1)
    """What is replaced."""
    drop: bool = False
    """Drop a row with any of it, instead of replacing it."""
    fields: list[str] | None = None
    """The fields that are looked at. null looks at all texts of a row."""


class DecontaminateStep(Section):
    """`decontaminate:` rows dropped that stand in other files, such as tests and benchmarks. A list is short for
    `against`."""

    against: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Files, folders or data sets on the Hub with the rows that must not be trained on."""
    ngram: int = Field(default=13, ge=1)
    """Drop a row that has so many words in a row in common with one of them (Brown et al. 2020, arXiv:2005.14165)."""
    near: float | None = Field(default=0.85, gt=0, le=1)
    """Drop a row that is so alike to one of them. null looks for the same words alone."""
    fields: list[str] | None = None
    """The fields that are compared. null compares all texts of a row."""
