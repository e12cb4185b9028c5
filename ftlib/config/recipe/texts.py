"""Steps that look at one row at a time: what its texts and its labels are."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftlib.config.data import Label, by_label, printed
from ftlib.config.recipe.teacher import JudgeSection, TeacherSection
from ftlib.config.section import Section

LANGUAGE = re.compile(r"[a-z]{2,3}|unknown")
Fields = list[str] | None


class CleanStep(Section):
    """`clean:` texts as they were meant: broken encodings repaired, one way of writing each character, no odd space."""

    unicode: bool = True
    """Repair texts that were decoded wrongly (ftfy), and write each character in one way (Unicode NFC)."""
    whitespace: bool = True
    """Remove control characters, spaces at the ends of lines, and empty lines beyond one."""
    boilerplate: bool = False
    """Remove lines that three in ten rows have: menus, banners, licence notices. Headers, footers and page numbers of
    PDF documents always go."""
    fields: Fields = None
    """The fields that are cleaned. null cleans all texts of a row."""


class ChunkStep(Section):
    """`chunk:` documents cut into rows that a model can learn from."""

    tokens: int = Field(default=512, ge=16)
    """The most tokens of a chunk."""
    overlap: int = Field(default=0, ge=0)
    """Tokens that a chunk repeats of the one before it."""
    by: Literal["headings", "paragraphs", "pages"] = "headings"
    """Where a document is cut first: at its headings, between its paragraphs, or between its pages."""
    tokenizer: str | None = None
    """The model whose tokenizer counts, best the one that will train: a folder, or a name on the Hub. null counts four
    bytes of UTF-8 as a token."""
    with_headings: bool = True
    """Write the headings that a chunk stands under at its beginning."""
    field: str = "text"
    """The field with the text, of rows that are no documents."""

    @model_validator(mode="after")
    def _moves_on(self) -> ChunkStep:
        if 2 * self.overlap > self.tokens:
            raise ValueError(f"overlap ({self.overlap}) must be at most half of tokens ({self.tokens})")
        return self


class QualitySection(Section):
    """`quality:` what a judge says of a row."""

    judge: JudgeSection
    """The model that judges: the URL of an OpenAI-compatible server, or a section."""
    at_least: float = Field(ge=0, le=10)
    """The lowest score, of 0 to 10, with which a row is kept."""
    rubric: str = "Is the text correct, clear, complete in itself, and worth learning from?"
    """What the judge looks at, in your words."""


class Where(Section):
    """What a field must be. All that is said must hold; a row without the field is dropped."""

    equals: Any = None
    """The value that the field has, or a list of values of which it has one."""
    not_equals: Any = None
    """A value, or a list of values, that the field does not have."""
    matches: str | None = None
    """A regular expression that is found in the field's text."""
    at_least: float | None = None
    """The smallest number."""
    at_most: float | None = None
    """The largest number."""

    @model_validator(mode="after")
    def _can_be(self) -> Where:
        if self.matches is not None and (why := _no_expression(self.matches)) is not None:
            raise ValueError(f"matches is no regular expression: {why}")
        if not self.model_fields_set:
            raise ValueError(f"say one of {', '.join(Where.model_fields)}")
        return self


def _no_expression(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return None


def _equals(value: Any) -> Any:
    return value if isinstance(value, dict) else {"equals": value}


class FilterStep(Section):
    """`filter:` rows that are dropped for what they are."""

    min_chars: int | None = Field(default=None, ge=0)
    """The fewest characters of a row."""
    max_chars: int | None = Field(default=None, ge=1)
    """The most characters of a row."""
    min_words: int | None = Field(default=None, ge=0)
    """The fewest words of a row."""
    max_words: int | None = Field(default=None, ge=1)
    """The most words of a row."""
    max_repetition: float | None = Field(default=None, ge=0, le=1)
    """The largest share of a row's words that stand in four words which stood there before, and of its lines that did
    (Rae et al. 2021, arXiv:2112.11446)."""
    language: list[str] | None = None
    """The languages that are kept, by their ISO 639-1 codes: [en, de]."""
    where: dict[
        str, Annotated[Where, BeforeValidator(_equals, json_schema_input_type=Where | str | float | bool | list[Any])]
    ] = Field(default_factory=dict)
    """Conditions on fields: {stars: {at_least: 4}, source: forum}."""
    quality: QualitySection | None = None
    """What a judge must say of a row. null asks none."""
    fields: Fields = None
    """The fields that are counted, and that the judge sees. null takes all texts of a row but its label."""

    @property
    def teachers(self) -> list[TeacherSection]:
        return [self.quality.judge] if self.quality else []

    @model_validator(mode="after")
    def _codes(self) -> FilterStep:
        for code in self.language or ():
            if not LANGUAGE.fullmatch(code):
                raise ValueError(f"language: '{code}' is no code of ISO 639-1: write en, de, fr and so on")
        return self


class LabelsStep(Section):
    """`labels:` one spelling for each class. Space around labels always goes."""

    map: Annotated[dict[Label, Label], BeforeValidator(by_label)] = Field(default_factory=dict)
    """Labels as the rows have them, and their new names. Several labels may get the same name."""
    case: Literal["fold", "lower", "upper", "keep"] = "keep"
    """The spelling of labels that map does not name. fold: labels that differ only in case or space get the spelling
    that most rows have."""
    field: str = "label"
    """The field with the label."""
    only: list[Label] | None = None
    """The labels that are kept, by their new names. null keeps all."""

    @model_validator(mode="before")
    @classmethod
    def _as_printed(cls, values: Any) -> Any:
        names = values.get("map") if isinstance(values, dict) else None
        if not isinstance(names, dict):
            return values
        return {**values, "map": {key: printed(name) if isinstance(name, int | float) else name
                                  for key, name in names.items()}}  # fmt: skip
