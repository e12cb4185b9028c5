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
    near: float | None = Field(default=None, ge=0.75, le=1)
    """Drop rows that have at least this share of their words, in order, in common with another: 0.9 where one word in
    ten differs. Found by MinHash (Broder 1997). null looks for no near duplicates."""
    keep: Literal["first", "longest"] = "first"
    """Which of them stays."""
    fields: list[str] | None = None
    """The fields that are compared. null compares all texts of a row."""


class RedactStep(Section):
    """`redact:` personal data and secrets replaced by their kind: [EMAIL]. A list is short for `kinds`."""

    kinds: list[PersonalData] = Field(min_length=1)
    """What is replaced."""
    regions: list[str] = Field(default_factory=list)
    """Countries (ISO 3166: DE) whose phone numbers and ids are found as one writes them there. An empty list takes ten
    large ones."""
    drop: bool = False
    """Drop a row with any of it, instead of replacing it."""
    fields: list[str] | None = None
    """The fields that are looked at. null looks at all texts of a row."""


class DecontaminateStep(Section):
    """`decontaminate:` rows dropped that stand in other files, such as tests and benchmarks: those that have 13 words
    in a row with one of them (Brown et al. 2020, arXiv:2005.14165), or nearly all words. A list is short for
    `against`."""

    against: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Files, folders or data sets on the Hub with the rows that must not be trained on."""
    near: float | None = Field(default=0.85, ge=0.75, le=1)
    """Drop a row that has at least this share of its words in common with one of them. null looks for 13 words in a row
    alone."""
    fields: list[str] | None = None
    """The fields that are compared. null compares all texts of a row."""
