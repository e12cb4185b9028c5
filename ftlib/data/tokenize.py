"""Passages as token ids and labels, and those as rows for a trainer.

Labels are the ids where the loss is taken and -100 elsewhere, unshifted, as transformers' models expect them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from ftlib.data.render import Passage, Span

if TYPE_CHECKING:
    import datasets

Example = tuple[list[int], list[int]]  # input_ids, labels
IGNORED = -100  # the label without loss, as in torch.nn.functional.cross_entropy
SPARE = 16  # tokens that a tokenizer may add to a text; of the text itself, none has less than a byte
BATCH = 1000  # rows tokenized, or written, at a time


@dataclass(frozen=True)
class Encoding:
    """How texts become ids. `whole`: texts are plain, and take the tokenizer's own special tokens."""

    tokenizer: Any
    max_length: int  # tokens
    whole: bool
    train_on_prompt: bool = False
    labels: tuple[str, ...] = ()  # the classes, in the order of their numbers
    splits: bool = False  # whether a row that is too long becomes several


@dataclass
class Tally:
    """What happened to the rows on their way."""

    truncated: int = 0
    split: int = 0  # rows that became several
    dropped: int = 0
    shortest_prompt: int | None = None  # tokens, over the rows whose prompt filled all of max_length
    lengths: list[int] = field(default_factory=list)  # tokens of each row
    trained_tokens: int = 0
    met: int = 0  # items so far, kept or dropped
    dropped_items: list[int] = field(default_factory=list)  # which of them, by number
    same: int = 0  # pairs of a chosen and a rejected answer of the same tokens

    def keep(self) -> None:
        """Counts an item that is trained on."""
        self.met += 1

    def drop(self, prompt: int) -> None:
        """Counts an item whose `prompt` tokens leave no room for anything to learn."""
        self.dropped += 1
        self.dropped_items.append(self.met)
        self.met += 1
        self.shortest_prompt = min(prompt, self.shortest_prompt or prompt)


def answers(passages: Iterable[Passage], encoding: Encoding, tally: Tally) -> datasets.Dataset:
    """Rows of `input_ids` and `labels` for supervised fine-tuning, one a passage."""
    examples = tokenize(
        passages,
        encoding.tokenizer,
        add_special_tokens=encoding.whole,
        train_on_prompt=encoding.train_on_prompt,
    )
    fitted = (split if encoding.splits else fit)(examples, encoding.max_length, tally)
    return collect(fitted, tally)


def text(passages: Iterable[Passage], encoding: Encoding, tally: Tally) -> datasets.Dataset:
    """Blocks of `max_length` tokens, all of them labelled, for pretraining."""
    examples = tokenize(passages, encoding.tokenizer, add_special_tokens=encoding.whole, train_on_prompt=True)
    return collect(blocks(examples, encoding.max_length, encoding.tokenizer.eos_token_id), tally)


def tokenize(
    passages: Iterable[Passage], tokenizer: Any, *, add_special_tokens: bool, train_on_prompt: bool
) -> Iterator[Example]:
    """The ids and the labels of each passage, at full length."""
    for batch in batches(passages):
        for passage, ids, offsets in zip(batch, *_encode(batch, tokenizer, add_special_tokens), strict=True):
            ids = closed_once(ids, tokenizer, add_special_tokens)
            everything = passage.spans is None or train_on_prompt
            spans = passage.silent if everything else passage.spans or ()
            if offsets is not None:
                inside = _inside(offsets, spans)
            else:
                inside = _inside_by_prefix(ids, passage.text, spans, tokenizer, add_special_tokens)
            yield ids, [IGNORED if (index in inside) == everything else token for index, token in enumerate(ids)]


def fit(examples: Iterable[Example], max_length: int, tally: Tally) -> Iterator[Example]:
    """Examples cut to `max_length` tokens from the start; those left with nothing to learn are dropped."""
    for ids, labels in examples:
        tally.truncated += len(ids) > max_length
        # The first token has nothing to be predicted from: its label takes no loss.
        if any(label != IGNORED for label in labels[1:max_length]):
            tally.keep()
            yield ids[:max_length], labels[:max_length]
            continue
        tally.drop(next((index for index, label in enumerate(labels) if label != IGNORED), len(labels)))


def split(examples: Iterable[Example], max_length: int, tally: Tally) -> Iterator[Example]:
    """Examples in pieces of at most `max_length` tokens; a piece with nothing to learn is left out.

    A piece begins with the last token of the one before, so that each token is predicted from something.
    """
    for ids, labels in examples:
        learned = [
            piece for piece in _pieces(ids, labels, max_length) if any(label != IGNORED for label in piece[1][1:])
        ]
        tally.split += len(ids) > max_length
        if not learned:
            tally.drop(len(ids))
            continue
        tally.keep()
        yield from learned


def _pieces(ids: list[int], labels: list[int], max_length: int) -> Iterator[Example]:
    for start in range(0, max(len(ids) - 1, 1), max_length - 1):
        end = start + max_length
        yield ids[start:end], [*([IGNORED] if start else labels[:1]), *labels[start + 1 : end]]


def blocks(examples: Iterable[Example], max_length: int, eos_token_id: int) -> Iterator[Example]:
    """The documents as one stream, each closed by eos, cut into blocks of `max_length` tokens.

    The rest at the end is left out, unless it is all there is.
    """
    stream: list[int] = []
    cut = 0
    for ids, _ in examples:
        stream += ids if ids[-1:] == [eos_token_id] else [*ids, eos_token_id]
        whole = len(stream) // max_length
        for start in range(0, whole * max_length, max_length):
            block = stream[start : start + max_length]
            yield block, list(block)
        del stream[: whole * max_length]
        cut += whole
    if not cut and len(stream) > 1:
        yield stream, list(stream)


def collect(examples: Iterable[Example], tally: Tally) -> datasets.Dataset:
    """A data set of `input_ids` and `labels`, held as Arrow: 8 bytes a token, a tenth of what lists take."""
    import datasets
    import pyarrow as pa

    schema = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})
    written = []
    for batch in batches(examples):
        tally.lengths += [len(ids) for ids, _ in batch]
        tally.trained_tokens += sum(label != IGNORED for _, labels in batch for label in labels)
        columns = {"input_ids": [ids for ids, _ in batch], "labels": [labels for _, labels in batch]}
        written.append(pa.RecordBatch.from_pydict(columns, schema=schema))
    return datasets.Dataset(pa.Table.from_batches(written, schema=schema))


def encode(texts: list[str], encoding: Encoding) -> list[list[int]]:
    """The ids of each text, at full length."""
    ids: list[list[int]] = encoding.tokenizer(
        texts, add_special_tokens=encoding.whole, return_attention_mask=False, verbose=False
    )["input_ids"]
    return ids


def closed_once(ids: list[int], tokenizer: Any, add_special_tokens: bool) -> list[int]:
    """The ids without a second eos: some tokenizers close a text of themselves, and this one may be closed already."""
    return ids[:-1] if add_special_tokens and ids[-2:] == [tokenizer.eos_token_id] * 2 else ids


def lengths(texts: Iterable[str], encoding: Encoding) -> Iterator[int]:
    """How many tokens each text has; of one with fewer bytes than `max_length` has tokens, how many bytes."""
    room = encoding.max_length - SPARE
    for batch in batches(texts):
        sizes = [len(text.encode()) for text in batch]
        perhaps = [text for text, size in zip(batch, sizes, strict=True) if size > room]
        known = iter(encode(perhaps, encoding)) if perhaps else iter(())
        for size in sizes:
            yield size if size <= room else len(closed_once(next(known), encoding.tokenizer, encoding.whole))


def batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    """The items in batches, one after another."""
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _encode(
    batch: list[Passage], tokenizer: Any, add_special_tokens: bool
) -> tuple[list[list[int]], list[list[Span]] | list[None]]:
    encoded = tokenizer(
        [passage.text for passage in batch],
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=tokenizer.is_fast,
        return_attention_mask=False,
        verbose=False,  # a text longer than the model's window is cut below
    )
    return encoded["input_ids"], encoded["offset_mapping"] if tokenizer.is_fast else [None] * len(batch)


def _inside(offsets: list[Span], spans: tuple[Span, ...]) -> set[int]:
    """The tokens of which any part lies in a span: TRL's rule too, for a token that joins prompt and completion.

    Tokenizers that trim offsets give a token of spaces no width, at the end of its spaces: where a span starts there,
    the token lies before it.
    """
    return {
        index for start, end in spans for index, (first, last) in enumerate(offsets) if last > start and first < end
    }


def _inside_by_prefix(
    ids: list[int], text: str, spans: tuple[Span, ...], tokenizer: Any, add_special_tokens: bool
) -> set[int]:
    """For tokenizers written in Python, which know no offsets: a span's tokens are those its prefix does not have."""

    def tokens_before(character: int) -> int:
        prefix = tokenizer(text[:character], add_special_tokens=add_special_tokens)["input_ids"]
        same = (mine == whole for mine, whole in zip(prefix, ids, strict=False))
        return next((index for index, equal in enumerate(same) if not equal), min(len(prefix), len(ids)))

    return {index for start, end in spans for index in range(tokens_before(start), tokens_before(end))}
