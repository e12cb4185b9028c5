"""Labelled texts, for classifiers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ftlib.data.formats import Record
from ftlib.data.labels import mapping_to
from ftlib.data.templates import without_opening
from ftlib.data.tokenize import Encoding, Tally, batches, encode
from ftlib.errors import DataError, nearest

if TYPE_CHECKING:
    import datasets

Labelled = tuple[str, str | int]


def render(record: Record, tokenizer: Any, template: str | None) -> list[Labelled]:
    """A text and its label, as they stand; a token with which the tokenizer opens texts stands once."""
    return [(without_opening(record["text"], tokenizer), record["label"])]


def label_names(train: Iterable[Labelled], held_out: Iterable[Labelled]) -> tuple[str, ...]:
    """The classes that the training rows have, by what they print as: numbers in their order and words in the
    alphabet's. Raises DataError for a single class, and for a class that only the evaluation rows have.
    """
    names = tuple(sorted({str(label) for _, label in train}, key=_order))
    if len(names) < 2:
        raise DataError(f"data.train: every row has the label '{names[0]}': a classifier needs two or more.")
    unseen = sorted({str(label) for _, label in held_out} - set(names))
    if unseen:
        raise DataError(
            f"data.eval: the label '{unseen[0]}' is in no training row, so it could never be predicted."
            + (mapping_to(unseen[0], names) or nearest(unseen[0], names))
        )
    return names


def _order(name: str) -> tuple[bool, int, str]:
    whole = name.removeprefix("-").isdecimal() and name.isascii()
    return not whole, int(name) if whole and len(name) < 100 else 0, name


def tokens(items: Iterable[Labelled], encoding: Encoding, tally: Tally) -> datasets.Dataset:
    """Rows of `input_ids`, cut to `max_length`, and `labels`, the number of the class."""
    import datasets

    number = {name: index for index, name in enumerate(encoding.labels)}
    rows: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for batch in batches(items):
        for (_, label), ids in zip(batch, encode([text for text, _ in batch], encoding), strict=True):
            tally.truncated += len(ids) > encoding.max_length
            tally.lengths.append(min(len(ids), encoding.max_length))
            tally.trained_tokens += 1
            rows["input_ids"].append(ids[: encoding.max_length])
            rows["labels"].append(number[str(label)])
    return datasets.Dataset.from_dict(rows)
