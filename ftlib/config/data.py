"""`data:` which rows, in which format, and how they become tokens."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ftlib.config.section import Section

FormatName = Literal[
    "auto",
    "alpaca",
    "stanford",
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
    """Labels as the file writes them, and their new names. Several labels may get the same name."""
    case: Literal["lower", "upper", "keep"] = "keep"
    """The spelling of labels that map does not name: lower case, upper case, or as they are (keep)."""


class Replay(Section):
    """Rows of an earlier task, mixed in so that it is not forgotten (continual fine-tuning; Rolnick et al. 2018,
    arXiv:1811.11682). `fraction` is their share of all training rows; they are drawn by `data.split_seed`."""

    train: str = Field(min_length=1)
    """The rows of the earlier task: a file, a folder of files, or a data set on the Hub."""
    fraction: float = Field(default=0.1, gt=0, lt=1)
    """The share of the earlier task's rows among all training rows. data.split_seed draws which rows are taken."""
    format: FormatName = "auto"
    """The format of these rows. auto finds it by their columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column names, and the names in these rows where they differ: {prompt: question}."""
    hub_config: str | None = None
    """The configuration of a data set on the Hub. null is its default one."""
    hub_split: str = "train"
    """The split of a data set on the Hub."""


# How conversations are written: the tokenizer's own way, or one of those in `ftlib/data/templates.py`.
TemplateName = Literal[
    "auto",
    "tokenizer",
    "alpaca",
    "alpaca_chat",
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
LongRows = Literal["cut", "drop", "split", "error"]
READING = ("format", "columns", "hub_config", "hub_split", "drop_system_message")  # how one set of rows is read


class TrainSource(Section):
    """One of several training sets. `weight` is how often each of its rows is met in an epoch: 2 is twice, 0.5 is a
    half of the rows, 1.5 all of them and a half of them again; which half is drawn by `data.split_seed`."""

    path: str = Field(min_length=1)
    """The rows of this member: a file, a folder of files, or a data set on the Hub."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """How often an epoch meets each row of this member: 2 is twice, 0.5 is half of the rows. data.split_seed draws
    which half."""
    format: FormatName = "auto"
    """The format of these rows. auto finds it by their columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column names, and the names in these rows where they differ: {prompt: question}."""
    hub_config: str | None = None
    """The configuration of a data set on the Hub. null is its default one."""
    hub_split: str = "train"
    """The split of a data set on the Hub."""
    drop_system_message: bool = False
    """Read conversations without the system turn at their start."""

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
    """The rows to train on: a file, a folder of files, a data set on the Hub, or a list of several. Each member of a
    list is a name, or a mapping that also says its weight and how it is read."""
    eval: str | None = None
    """The rows to evaluate on: a file, a folder of files, or a data set on the Hub. null holds out a share of the
    training rows (eval_split)."""
    eval_split: float = Field(default=0.1, ge=0, lt=1)
    """The share of the training rows that is held out for evaluation while eval is null. 0 holds out none, and then
    nothing is evaluated."""
    split_seed: int = 42
    """The seed that draws which rows are held out, and which rows of replay and of weighted sets are taken."""
    group: str | None = None
    """The column whose value rows of one origin share (document_id). eval_split keeps such rows on one side. null keeps
    together only rows that ask the same."""
    hub_config: str | None = None
    """The configuration of a data set on the Hub. null is its default one. Where train is a list, each member has its
    own."""
    hub_split: str = "train"
    """The split of a data set on the Hub. Where train is a list, each member has its own."""
    format: FormatName = "auto"
    """The format of the rows; docs/data.md has the columns of each. auto finds it by the columns. Where train is a
    list, each member has its own."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column names, and the file's names where they differ: {prompt: question, completion: answer}. Where train is
    a list, each member has its own."""
    drop_system_message: bool = False
    """Read conversations without the system turn at their start, for templates that take none. Where train is a list,
    each member has its own."""
    deduplicate: bool = False
    """Leave out rows that are equal to an earlier one, evaluation rows among them: the first stays. 'ftlib check' says
    how many these are. Similar rows stay; the recipe's step dedupe finds these."""
    ignore_columns: list[str] = Field(default_factory=list)
    """Columns that are read as if the file did not have them."""
    labels: Labels = Field(default_factory=Labels)
    """New names for labels, for methods classify and kto: {map: {spam: junk}} renames one, {case: lower} writes all in
    lower case."""
    template: TemplateName = "auto"
    """The chat template: how conversations become text. auto is the tokenizer's own; a tokenizer without one gets
    alpaca, or chatml where a row has several turns. none joins the texts without a template."""
    train_on_prompt: bool = False
    """Take the loss on prompts too. false takes it on answers alone. It is for methods sft and distill."""
    max_length: int = Field(default=1024, ge=2)
    """The most tokens of a row; `long_rows` says what becomes of a longer one. A row whose prompt leaves no room for an
    answer is left out. With method pretrain it is the length of each block of text."""
    long_rows: LongRows = "cut"
    """What becomes of a row with more tokens than max_length. cut: its end goes. drop: the row is left out. split: it
    becomes several rows, each but the first without what came before (for methods sft and distill). error: the command
    ends and names the row."""
    packing: bool = False
    """Join short rows into rows of max_length tokens, so that batches have less padding. It is for methods sft,
    pretrain and distill with kind: sequence."""
    replay: Replay | None = None
    """Rows of an earlier task that are mixed into the training rows, so that the model does not forget that task. null
    mixes in none."""
    max_rows: int | None = Field(default=None, ge=2)
    """Read only so many rows of each source, from its start. null reads all rows."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What happens at a row that cannot be used. error ends the command and names the row. skip leaves the row out and
    counts it."""

    @model_validator(mode="after")
    def _each_source_says_how_it_is_read(self) -> DataSection:
        for key in READING:
            if isinstance(self.train, list) and self.eval is None and key in self.model_fields_set:
                default = DataSection.model_fields[key].get_default(call_default_factory=True)
                if getattr(self, key) != default:
                    raise ValueError(f"{key} is said by each member of train where that is a list: set it there")
        return self

    @model_validator(mode="after")
    def _groups_are_held_out(self) -> DataSection:
        if self.group is not None and (self.eval is not None or not self.eval_split):
            reason = "eval names a file" if self.eval is not None else "eval_split is 0"
            raise ValueError(f"group says which rows eval_split keeps together, and {reason}: leave group out")
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
            (f"train[{number}].path", member.weight, self.model_copy(update=member.reading()))
            for number, member in enumerate(self.train)
        ]
