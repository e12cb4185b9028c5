"""`from:` of a recipe: which files and data sets its rows come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ftlib.config.section import Section

SOURCE_KINDS = ("pdf", "html", "docx", "text", "jsonl", "csv", "tsv", "xlsx", "parquet", "hub", "log")
TABLES = ("jsonl", "csv", "tsv", "xlsx", "parquet", "hub", "log")  # their rows have columns
BY_ENDING = {
    **{f".{kind}": kind for kind in SOURCE_KINDS if kind not in ("text", "hub", "log")},
    **{".htm": "html", ".txt": "text", ".md": "text", ".markdown": "text", ".json": "jsonl"},
}
HUB = "hub:"
LOG = "log:"
DATA = "data:"

Place = Annotated[str, Field(min_length=1)]


class SourceSection(Section):
    """One member of `from`: a kind, where it lies, and how it is read. Each kind takes a file, a folder, a glob
    (`manuals/**/*.pdf`) or a URL of one (`s3://BUCKET/...`); hub and log take a name."""

    pdf: Place | None = None
    """PDF documents."""
    html: Place | None = None
    """Pages of HTML, of which the main text is read."""
    docx: Place | None = None
    """Documents of Word."""
    text: Place | None = None
    """Files of plain text or Markdown."""
    jsonl: Place | None = None
    """Files with a JSON object on each line, or .json files with a list of objects. An object is a row. data:NAME are
    the rows for training that another recipe has made."""
    csv: Place | None = None
    """Tables with commas or semicolons between cells, and a header."""
    tsv: Place | None = None
    """Tables with tabs between cells, and a header."""
    xlsx: Place | None = None
    """Spreadsheets. The first row of each sheet is the header."""
    parquet: Place | None = None
    """Parquet files."""
    hub: Place | None = None
    """A data set on the Hugging Face Hub, by its name."""
    log: Place | None = None
    """The chats that an endpoint has sampled for a name of the registry, redacted as it redacts them
    (docs/serving.md). A row has `messages`. No chat yet is no error."""
    until: float | None = None
    """Of a log, only chats until this time, in seconds since 1970. null takes all. A pipeline sets it."""
    columns: dict[str, str] = Field(default_factory=dict)
    """New names of columns, and their names in the source: {text: body, label: category}. Other columns keep their
    names."""
    only: list[str] = Field(default_factory=list)
    """The columns that are kept, by their new names. An empty list keeps all."""
    split: str = "train"
    """The split of a data set on the Hub."""
    config: str | None = None
    """The configuration of a data set on the Hub. null is its default one."""
    license: str | None = None
    """What you know of the licence of this source. The data card repeats it."""

    @model_validator(mode="after")
    def _one_kind(self) -> SourceSection:
        given = [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            told = f"has {' and '.join(given)}" if given else "has none"
            raise ValueError(f"a source has one of {', '.join(SOURCE_KINDS)}, but this one {told}")
        for key in ("columns", "only"):
            if getattr(self, key) and given[0] not in TABLES:
                raise ValueError(f"{key} is for tables ({', '.join(TABLES)}), but this source is {given[0]}")
        for key, kind in (("split", "hub"), ("config", "hub"), ("until", "log")):
            if key in self.model_fields_set and given[0] != kind:
                raise ValueError(f"{key} is for {kind}, but this source is {given[0]}")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in SOURCE_KINDS if getattr(self, kind) is not None)

    @property
    def place(self) -> str:
        """The file, folder, glob, URL, name on the Hub, or name of the registry."""
        return str(getattr(self, self.kind))


def _by_ending(value: Any) -> Any:
    """`tickets.csv` is {csv: tickets.csv}, `hub:glue` is {hub: glue}, `log:support` is {log: support}, and
    `data:tickets` is {jsonl: data:tickets}."""
    if not isinstance(value, str):
        return value
    if value.startswith(HUB):
        return {"hub": value.removeprefix(HUB)}
    if value.startswith(LOG):
        return {"log": value.removeprefix(LOG)}
    if value.startswith(DATA):
        return {"jsonl": value}
    kind = BY_ENDING.get(Path(value).suffix.lower())
    if kind is None:
        raise ValueError(f"the ending of '{value}' names no kind of source: write for example {{html: {value}}}")
    return {kind: value}


Source = Annotated[SourceSection, BeforeValidator(_by_ending, json_schema_input_type=str | SourceSection)]
