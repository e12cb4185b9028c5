"""`data:` which rows, in which format, and how they become tokens."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ftlib.config.section import Section

FormatName = Literal[
    "auto",
    "alpaca",
    "messages",
    "sharegpt",
    "prompt_completion",
    "text",
    "preference",
    "kto",
    "classification",
    "prompt_only",
]


def printed(value: Any) -> str:
    """A value as JSON prints it, texts without their quotes: 1 and "1" print the same, and so do true and "true"."""
    if isinstance(value, float) and value.is_integer():  # tables with gaps keep whole numbers as 1.0
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def by_label(value: Any) -> Any:
    """A mapping of labels with its keys as labels print: YAML reads 0 as a number and true as a truth value."""
    if not isinstance(value, dict):
        return value
    names = [printed(key) for key in value]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the label '{twice}' stands there twice")
    return dict(zip(names, value.values(), strict=True))


def _as_printed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: printed(label) if isinstance(label, str | int | float) else label
            for key, label in by_label(value).items()}  # fmt: skip


Label = Annotated[str, Field(min_length=1)]


class Labels(Section):
    """What becomes of the labels of classes (and of KTO's verdicts). Space around them always goes.

    `map` names labels anew, as they are written in the file, so that several become one; `case` spells those that it
    does not name: `lower` makes one class of 'Spam' and 'spam'.
    """

    map: Annotated[dict[Label, Label], BeforeValidator(_as_printed)] = Field(default_factory=dict)
    """Labels as they are written, to what they become; several may become one."""
    case: Literal["lower", "upper", "keep"] = "keep"
    """How labels are spelled that map does not name."""


class Replay(Section):
    """Rows of an earlier task, mixed in so that it is not forgotten (continual fine-tuning; Rolnick et al. 2018,
    arXiv:1811.11682). `fraction` is their share of all training rows; they are drawn by `data.split_seed`."""

    train: str = Field(min_length=1)
    """A file, a folder of files, or a data set on the Hub: rows of an earlier task."""
    fraction: float = Field(default=0.1, gt=0, lt=1)
    """Their share of all training rows."""
    format: FormatName = "auto"
    """The format of these rows; auto: found by their columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our names to the columns of these rows: {prompt: question}."""
    hub_config: str | None = None
    """Which configuration of a data set on the Hub."""
    hub_split: str = "train"
    """Which split of a data set on the Hub."""


# How conversations are written: the tokenizer's own way, or one of those in `ftlib/data/templates.py`.
TemplateName = Literal[
    "auto",
    "tokenizer",
    "alpaca",
    "chatml",
    "llama3",
    "qwen",
    "qwen3",
    "gemma",
    "gemma3",
    "mistral",
    "phi",
    "none",
]
READING = ("format", "columns", "hub_config", "hub_split")  # how one set of rows is read


class TrainSource(Section):
    """One of several training sets. `weight` is how often each of its rows is met in an epoch: 2 is twice, 0.5 is a
    half of the rows, 1.5 all of them and a half of them again; which half is drawn by `data.split_seed`."""

    path: str = Field(min_length=1)
    """A file, a folder of files, or a data set on the Hub."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """How often each row is met in an epoch: 2 is twice, 0.5 is a half of the rows."""
    format: FormatName = "auto"
    """The format of these rows; auto: found by their columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our names to the columns of these rows: {prompt: question}."""
    hub_config: str | None = None
    """Which configuration of a data set on the Hub."""
    hub_split: str = "train"
    """Which split of a data set on the Hub."""

    def reading(self) -> dict[str, Any]:
        """What takes the place of the section's own keys when this set is read."""
        return {"train": self.path} | {key: getattr(self, key) for key in READING}


def _kind_of_train(value: Any) -> str | None:
    """Names in brackets are left out of the path in a message."""
    return "[one]" if isinstance(value, str) else "[several]" if isinstance(value, list) else None


def _named(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


Sources = Annotated[
    list[Annotated[TrainSource, BeforeValidator(_named, json_schema_input_type=str | TrainSource)]], Field(min_length=1)
]
Train = Annotated[
    Annotated[str, Field(min_length=1), Tag("[one]")] | Annotated[Sources, Tag("[several]")],
    Discriminator(
        _kind_of_train,
        custom_error_type="neither",
        custom_error_message="must be the name of a file, a folder or a data set, or a list of them",
    ),
]


class DataSection(Section):
    """`train` and `eval` each name a file, a folder of files, or a data set on the Hub; `train` may list several."""

    train: Train
    """The rows to train on: a file, a folder of files, a data set on the Hub, or a list of {path, weight, format,
    columns}."""
    eval: str | None = None
    """The rows to evaluate on; null: a share of the training rows is held out."""
    eval_split: float = Field(default=0.1, ge=0, lt=1)
    """The share of the training rows that is held out when there is no `eval`; 0 holds none out, and nothing is
    evaluated."""
    split_seed: int = 42
    """Draws which rows are held out, and which are mixed in."""
    hub_config: str | None = None
    """Which configuration of a data set on the Hub."""
    hub_split: str = "train"
    """Which split of a data set on the Hub."""
    format: FormatName = "auto"
    """The format of the rows; auto: found by their columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our names to the file's columns: {prompt: question, completion: answer}."""
    ignore_columns: list[str] = Field(default_factory=list)
    """Columns of the file that are read as if they were not there."""
    labels: Labels = Field(default_factory=Labels)
    """What becomes of labels: {map: {spam: junk}} names some anew, {case: lower} spells all alike."""
    template: TemplateName = "auto"
    """How conversations become text. auto: the tokenizer's own template, else alpaca, or chatml for several turns."""
    train_on_prompt: bool = False
    """Take the loss on prompts too, not on answers alone."""
    max_length: int = Field(default=1024, ge=2)
    """Tokens of a row; what is longer is cut at its end."""
    packing: bool = False
    """Join short rows to rows of max_length tokens."""
    replay: Replay | None = None
    """Rows of an earlier task, mixed in so that it is not forgotten."""
    max_rows: int | None = Field(default=None, ge=2)
    """Take so many rows of each source at most, from its start."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What a row that cannot be used does: end with its line (error), or be left out and counted (skip)."""

    @model_validator(mode="after")
    def _each_source_says_how_it_is_read(self) -> DataSection:
        for key in READING:
            if isinstance(self.train, list) and self.eval is None and key in self.model_fields_set:
                default = DataSection.model_fields[key].get_default(call_default_factory=True)
                if getattr(self, key) != default:
                    raise ValueError(f"{key} is said by each member of train where that is a list: set it there")
        return self

    @property
    def held_out(self) -> bool:
        """Whether there are rows to evaluate on."""
        return self.eval is not None or self.eval_split > 0

    @property
    def sources(self) -> list[tuple[str, float, DataSection]]:
        """The training sets: the key of each, its weight, and the section that says how it is read."""
        if isinstance(self.train, str):
            return [("train", 1.0, self)]
        return [
            (f"train[{number}].path", each.weight, self.model_copy(update=each.reading()))
            for number, each in enumerate(self.train)
        ]
