"""A first look at a data set: which format it has, by its columns and by what stands in them, and how much there is.

Needs no tokenizer and no torch: lengths are in characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ftlib.config.data import DataSection
from ftlib.data.fields import BadRow, Unweighted
from ftlib.data.formats import COLUMNS, LABELS, normalize
from ftlib.data.read import Row, columns_of, find_source, read_rows, shorten
from ftlib.data.render import is_multi_turn
from ftlib.errors import DataError

MOST_ROWS = 100_000  # that are looked at
LONGEST_NAME = 40  # characters of a column's name
CLASSES = 50  # labels that a column of labels has at most
SAME_LABEL = 4  # rows that such a column has for each label at least, on average
# What columns are called elsewhere. The formats in the order in which they are tried: the most telling first.
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "preference": {
        "prompt": ("prompt", "question", "instruction", "query", "input"),
        "chosen": ("chosen", "preferred", "accepted", "better", "response_chosen", "chosen_response"),
        "rejected": ("rejected", "dispreferred", "worse", "response_rejected", "rejected_response"),
    },
    "kto": {
        "prompt": ("prompt", "question", "instruction", "query"),
        "completion": ("completion", "answer", "response", "output"),
        "label": ("label", "thumbs_up", "liked", "good", "desirable", "verdict"),
    },
    "messages": {"messages": ("messages", "conversation", "dialog", "dialogue", "turns", "chat")},
    "sharegpt": {"conversations": ("conversations", "conversation", "dialog", "dialogue")},
    "alpaca": {"instruction": ("instruction",), "output": ("output", "response", "answer")},
    "prompt_completion": {
        "prompt": ("prompt", "question", "query", "problem", "input", "request", "source", "user"),
        "completion": (
            "completion",
            "answer",
            "response",
            "output",
            "reply",
            "solution",
            "target",
            "summary",
            "assistant",
        ),
    },
    "classification": {
        "text": ("text", "sentence", "content", "review", "message", "document", "body", "tweet", "comment", "title"),
        "label": ("label", "labels", "category", "class", "sentiment", "intent", "topic", "tag", "target"),
    },
    "text": {"text": ("text", "content", "body", "document", "article")},
}


@dataclass(frozen=True)
class Look:
    """`format` and `renamed` are what `data.format` and `data.columns` say of it; `lengths` are characters a row."""

    source: str
    format: str
    columns: tuple[str, ...]
    renamed: dict[str, str]
    rows: int
    whole: bool  # whether every row was looked at
    lengths: tuple[int, ...]  # in order
    labels: Counter[str] = field(default_factory=Counter)
    multi_turn: bool = False
    bad: int = 0
    first_bad: str = ""

    def length(self, percent: int) -> int:
        """Characters of the row below which so many percent of them are."""
        return self.lengths[min(len(self.lengths) - 1, len(self.lengths) * percent // 100)]

    def sentences(self) -> list[str]:
        """What was seen, as sentences for a person."""
        many = f"{self.rows:,}" if self.whole else f"more than {self.rows:,}"
        said = [f"{self.source}: {many} rows, {self.format}; about {self.length(50):,} characters each, the longest "
                f"{self.lengths[-1]:,}"]  # fmt: skip
        if self.renamed:
            said.append("columns: " + ", ".join(f"{theirs} is the {ours}" for ours, theirs in self.renamed.items()))
        if self.labels:
            most = ", ".join(f"{name} ({count:,})" for name, count in self.labels.most_common(8))
            said.append(f"labels: {len(self.labels)}: {most}{' ...' * (len(self.labels) > 8)}")
        if self.bad:
            said.append(f"{self.bad:,} rows cannot be used, first {self.first_bad}")
        return said


def look(name: str, formats: Sequence[str] = tuple(NAMES)) -> Look:
    """A look at a file, a folder or a data set on the Hub. `formats` are those that may be found in it.

    Raises DataError for what is not there, holds no rows, or fits no format.
    """
    section = DataSection(train=name, max_rows=MOST_ROWS)
    source = find_source("train", section)
    rows = read_rows(source, section)
    found, renamed = _format(rows, formats)
    delimited = source.files and all(path.suffix.lower() in (".csv", ".tsv") for _, path in source.files)
    if delimited and (not found or _is_row(columns_of(rows))):
        without = list(islice(source.rows(header=False), MOST_ROWS))
        found, renamed = _format(without, formats)
        rows = without if found else rows
    if not found:
        other, _ = _format(rows, tuple(NAMES))
        if other:
            raise DataError(f"{name} holds {other} rows, and this goal learns from {' or '.join(formats)}.")
        listed = ", ".join(shorten(column) for column in columns_of(rows))
        wanted = "; ".join(f"{kind}: {', '.join(NAMES[kind])}" for kind in formats)
        raise DataError(
            f"{name}: its columns ({listed}) do not say what is learned from them. Give columns these names "
            f"({wanted}), "
            "or write the experiment by hand, with data.columns."
        )
    return _seen(name, found, renamed, rows)


def _is_row(header: Sequence[str]) -> bool:
    """Whether a first line is no header: it holds a number, or a whole text."""
    return any(cell.strip().isdecimal() or len(cell) > LONGEST_NAME for cell in header)


def _format(rows: Sequence[Row], formats: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The first format that fits, and which of its columns are called otherwise; '' where none does."""
    exact = next((name for name, needed in COLUMNS.items() if _fits(name, needed, rows)), None)
    if exact in formats:
        return str(exact), {}
    there = {column.strip().lower(): column for column in reversed(columns_of(rows))}
    for name in formats:
        named = _named(NAMES[name], there)
        if named is not None and _holds(name, named, rows):
            return name, {ours: theirs for ours, theirs in named.items() if ours != theirs}
    if "classification" in formats:
        named = _by_content(rows)
        if named is not None:
            return "classification", {ours: theirs for ours, theirs in named.items() if ours != theirs}
    return "", {}


def _fits(name: str, needed: Sequence[Sequence[str]], rows: Sequence[Row]) -> bool:
    """Whether the columns have a format's own names, as `data.format: auto` looks for them."""
    there = set(columns_of(rows))
    fitting = next((names for names in needed if set(names) <= there), None)
    return fitting is not None and _holds(name, {column: column for column in fitting}, rows)


def _named(wanted: Mapping[str, Sequence[str]], there: Mapping[str, str]) -> dict[str, str] | None:
    """Ours to theirs, each column once; None where one of them has no counterpart."""
    named: dict[str, str] = {}
    for ours, names in wanted.items():
        theirs = next((there[name] for name in names if name in there and there[name] not in named.values()), None)
        if theirs is None:
            return None
        named[ours] = theirs
    return named


def _holds(name: str, named: Mapping[str, str], rows: Sequence[Row]) -> bool:
    """Whether the columns hold what the format has in them."""
    values = {ours: _values(rows, theirs) for ours, theirs in named.items()}
    if name == "kto":
        return all(str(value).strip().lower() in LABELS for value in values["label"])
    if name in ("messages", "sharegpt"):
        (turns,) = values.values()
        return all(isinstance(value, list) for value in turns)
    if name == "classification":
        return _are_labels(values["label"])
    return True


def _by_content(rows: Sequence[Row]) -> dict[str, str] | None:
    """A column of labels beside a column of longer texts, whatever they are called."""
    columns = {column: _values(rows, column) for column in columns_of(rows)}
    labels = [column for column, values in columns.items() if _are_labels(values)]
    texts = [column for column, values in columns.items() if all(isinstance(value, str) for value in values)]
    texts = sorted((column for column in texts if column not in labels), key=lambda name: -_mean(columns[name]))
    return {"text": texts[0], "label": labels[-1]} if texts and labels else None


def _are_labels(values: Sequence[Any]) -> bool:
    """Whether texts look like labels: there are few different ones, they are short, and they repeat."""
    if not all(isinstance(value, str | int | bool) for value in values):
        return False
    distinct = {str(value) for value in values}
    few = 2 <= len(distinct) <= CLASSES and (len(values) >= SAME_LABEL * len(distinct) or len(distinct) <= 3)
    return few and max(map(len, distinct)) <= 60


def _values(rows: Iterable[Row], column: str) -> list[Any]:
    return [row.fields[column] for row in rows if row.fields.get(column) is not None]


def _mean(texts: Sequence[str]) -> float:
    return sum(map(len, texts)) / max(len(texts), 1)


def _seen(name: str, format_name: str, renamed: dict[str, str], rows: Sequence[Row]) -> Look:
    records, bad = [], []
    for row in rows:
        fields = row.fields | {ours: row.fields[theirs] for ours, theirs in renamed.items() if theirs in row.fields}
        try:
            if row.problem:
                raise BadRow(row.problem)
            records.append(normalize(format_name, fields))
        except Unweighted:
            continue
        except BadRow as reason:
            bad.append(f"{row.where}: {reason}")
    if not records:
        raise DataError(f"{name}: no row can be used: {'; '.join(bad[:3])}.")
    return Look(
        source=name,
        format=format_name,
        columns=tuple(columns_of(rows)),
        renamed=renamed,
        rows=len(rows),
        whole=len(rows) < MOST_ROWS,
        lengths=tuple(sorted(map(_characters, records))),
        labels=Counter(str(record["label"]) for record in records) if format_name == "classification" else Counter(),
        multi_turn=any(map(is_multi_turn, records)),
        bad=len(bad),
        first_bad=bad[0] if bad else "",
    )


def _characters(value: Any) -> int:
    """Of all texts in a record together; of a preference, of its prompt and the longer answer."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        if "chosen" in value:
            return _characters(value["prompt"]) + max(_characters(value[side]) for side in ("chosen", "rejected"))
        return sum(_characters(part) for key, part in value.items() if key not in ("role", "label"))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0
