"""From `data:` and a tokenizer to rows of tokens, once: read, normalize, render, split, tokenize, store.

What the same data, settings, method and tokenizer gave before is taken from the cache.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ftlib import runs
from ftlib.config.data import DataSection
from ftlib.config.method import Rows
from ftlib.data.cache import Prepared, cache_key, load_prepared, store
from ftlib.data.formats import BadRow, Record, detect, normalize
from ftlib.data.kinds import KINDS, Kind, method_for
from ftlib.data.labelled import label_names
from ftlib.data.read import Row, Source, columns_of, find_source, read_rows
from ftlib.data.render import is_multi_turn
from ftlib.data.report import DataReport, Lengths
from ftlib.data.templates import template_for, template_name, use_template
from ftlib.data.tokenize import Encoding, Tally
from ftlib.errors import DataError

if TYPE_CHECKING:
    import datasets

LISTED = 20  # bad rows that the report names

Item = TypeVar("Item")
Result = TypeVar("Result")
Placed = tuple[str, Item]  # where a row stands, and what became of it


@dataclass
class BadRows:
    """Bad rows, counted, the first few named; with `on_bad_row: error` the first is the end."""

    on_bad_row: str
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, where: str, reason: str) -> None:
        """Raises DataError unless bad rows are skipped."""
        if self.on_bad_row == "error":
            raise DataError(f"{where}: {reason}. (data.on_bad_row: skip leaves such rows out.)")
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append(f"{where}: {reason}")

    def keep_good(self, items: Sequence[Placed[Item]], change: Callable[[Item], Result]) -> list[Placed[Result]]:
        """What `change` makes of the items it does not raise BadRow for. Raises DataError when that leaves none."""
        good = []
        for where, item in items:
            try:
                good.append((where, change(item)))
            except BadRow as bad:
                self.add(where, str(bad))
        if not good:
            raise DataError(f"no row can be used: {'; '.join(self.first[:3])}.")
        return good


@dataclass(frozen=True)
class Part:
    """The rows of one source, each as the items that the kind's `render` made of it. `whole`: their texts are plain,
    and take the tokenizer's own special tokens."""

    format: str
    items: list[list[Any]]
    whole: bool
    source: list[int] = field(default_factory=list)  # which training set each row is of

    def pick(self, rows: Sequence[int]) -> Part:
        """Some of the rows, in the order asked for."""
        return replace(self, items=[self.items[row] for row in rows], source=[self.source[row] for row in rows])

    def all_items(self) -> list[Any]:
        return [item for items in self.items for item in items]


def prepare(data: DataSection, rows: Rows, tokenizer: Any, *, cache: Path | None = None) -> Prepared:
    """The tokenized rows of `data`, of the kind that a method trains on, from `cache` when they were made before.

    Sets `tokenizer.chat_template` to the template that the rows were written with. Raises DataError for data that
    cannot be used, and FtlibError when the cache cannot be written.
    """
    if tokenizer.eos_token is None and rows != "labelled":
        raise DataError("the tokenizer has no eos token, so no row could be ended: set one (tokenizer.eos_token).")
    sources = _sources(data)
    key = cache_key([source for source, _ in sources], data, rows, tokenizer)
    target = (cache or runs.home() / "cache" / "data") / key
    prepared = None
    with contextlib.suppress(DataError):  # not there, or damaged: made again
        prepared = load_prepared(target)
    prepared = prepared or _build(sources, data, rows, tokenizer, target)
    if prepared.chat_template is not None:
        use_template(tokenizer, prepared.chat_template)
    return prepared


def _sources(data: DataSection) -> list[tuple[Source, DataSection]]:
    """The training sets, then the rows to evaluate on and those to mix in, as far as they are named, and how to read
    each."""
    sources = [(find_source("train", section, called), section) for called, _, section in data.sources]
    if data.eval:
        sources.append((find_source("eval", data), data))
    if data.replay is not None:
        section = data.model_copy(update=dict(data.replay.model_copy()))
        sources.append((find_source("train", section, "replay.train"), section))
    return sources


def _build(
    sources: Sequence[tuple[Source, DataSection]], data: DataSection, rows: Rows, tokenizer: Any, target: Path
) -> Prepared:
    kind, bad = KINDS[rows], BadRows(data.on_bad_row)
    read = [read_rows(source, section) for source, section in sources]
    parsed = [
        _parse(source, read_of, section, rows, bad) for (source, section), read_of in zip(sources, read, strict=True)
    ]
    template = _template(parsed, data, tokenizer)
    parts = [_rendered(kind, name, records, tokenizer, template, bad) for name, records in parsed]
    replay = parts.pop() if data.replay is not None else None
    sets = len(data.sources)
    joined = _joined(parts[:sets])
    train, held_out = (joined, parts[sets]) if data.eval else _split(joined, data)
    train = _weighted(train, [weight for _, weight, _ in data.sources], data.split_seed)
    if replay is not None and data.replay is not None:
        train = _mixed(train, replay, data.replay.fraction, data.split_seed)
    labels = label_names(train.all_items(), held_out.all_items()) if rows == "labelled" else ()

    tally, held_out_tally = Tally(), Tally()
    encoding = Encoding(tokenizer, data.max_length, train.whole, data.train_on_prompt, labels)
    train_rows = _tokens(kind, train, encoding, tally)
    held_out_rows = train_rows.select([])
    if data.held_out:
        held_out_rows = _tokens(kind, held_out, replace(encoding, whole=held_out.whole), held_out_tally)
    report = DataReport(
        rows=rows,
        format=train.format,
        template=template_name(template, tokenizer),
        max_length=data.max_length,
        rows_read=sum(map(len, read)),
        skipped=bad.count,
        skipped_rows=tuple(bad.first),
        truncated=tally.truncated + held_out_tally.truncated,
        dropped=tally.dropped + held_out_tally.dropped,
        train_rows=len(train_rows),
        eval_rows=len(held_out_rows),
        train_tokens=sum(tally.lengths),
        trained_tokens=tally.trained_tokens,
        lengths=Lengths.of(tally.lengths),
        labels=labels,
    )
    return store(target, train_rows, held_out_rows, report, template)


def _parse(
    source: Source, rows: Sequence[Row], data: DataSection, wanted: Rows, bad: BadRows
) -> tuple[str, list[Placed[Record]]]:
    """The format of the rows, and the canonical record of each."""
    columns = columns_of(rows)
    name = detect(data.format, columns, f"data.{source.key}: {source.name}") if columns else ""
    if name and name not in KINDS[wanted].formats:
        raise DataError(
            f"data.{source.key}: {source.name} holds {name} rows, which are for method.type: {method_for(name)}; "
            f"this method needs {KINDS[wanted].needs} (set data.format to read the rows as another format)."
        )

    def record(row: Row) -> Record:
        if row.problem:
            raise BadRow(row.problem)
        return normalize(name, row.fields)

    return name, bad.keep_good([(row.where, row) for row in rows], record)


def _template(parsed: Sequence[tuple[str, list[Placed[Record]]]], data: DataSection, tokenizer: Any) -> str | None:
    records = [record for _, placed in parsed for _, record in placed]
    if all("text" in record for record in records):
        return None
    return template_for(data, tokenizer, any(map(is_multi_turn, records)))


def _rendered(
    kind: Kind, name: str, records: Sequence[Placed[Record]], tokenizer: Any, template: str | None, bad: BadRows
) -> Part:
    rendered = bad.keep_good(records, lambda record: kind.render(record, tokenizer, template))
    return Part(name, [items for _, items in rendered], whole=template is None or "text" in records[0][1])


def _joined(parts: Sequence[Part]) -> Part:
    """The rows of all training sets, one set after another."""
    if len({part.whole for part in parts}) > 1:
        raise DataError("data.train: plain text and conversations do not mix: give all training sets the same shape.")
    return replace(
        parts[0],
        format=" + ".join(dict.fromkeys(part.format for part in parts)),
        items=[items for part in parts for items in part.items],
        source=[number for number, part in enumerate(parts) for _ in part.items],
    )


def _weighted(train: Part, weights: Sequence[float], seed: int) -> Part:
    """Each row as often as the weight of its set says; the broken part of a weight is a drawn share of the set's rows."""
    if all(weight == 1 for weight in weights):
        return train
    drawn, rows = random.Random(seed), []
    for number, weight in enumerate(weights):
        of_set = [row for row, source in enumerate(train.source) if source == number]
        whole, share = divmod(weight, 1)
        once_more = set(drawn.sample(of_set, round(len(of_set) * share)))
        rows += [row for row in of_set for _ in range(int(whole) + (row in once_more))]
    if not rows:
        raise DataError("data.train: the weights leave no row to train on: raise them.")
    return train.pick(rows)


def _split(part: Part, data: DataSection) -> tuple[Part, Part]:
    """A seeded share of the rows for evaluation, and the rest; both in the order of the file."""
    count = len(part.items)
    if not data.eval_split:
        return part, part.pick([])
    if count < 2:
        names = "', '".join(str(section.train) for _, _, section in data.sources)
        raise DataError(
            f"data.train: '{names}' needs at least 2 rows, one to train on and one to evaluate on, "
            "or a file of its own in data.eval."
        )
    held_out = min(max(1, round(count * data.eval_split)), count - 1)
    chosen = set(random.Random(data.split_seed).sample(range(count), held_out))
    return part.pick([row for row in range(count) if row not in chosen]), part.pick(sorted(chosen))


def _mixed(train: Part, replay: Part, fraction: float, seed: int) -> Part:
    """Both together, `fraction` of them drawn from `replay`, or all that it has. Trainers shuffle."""
    if train.whole != replay.whole:
        raise DataError("data.replay.train: plain text and conversations do not mix: give both the same shape.")
    count = min(round(len(train.items) * fraction / (1 - fraction)), len(replay.items))
    return replace(train, items=train.items + random.Random(seed).sample(replay.items, count))


def _tokens(kind: Kind, part: Part, encoding: Encoding, tally: Tally) -> datasets.Dataset:
    rows = kind.tokens(part.all_items(), encoding, tally)
    if not len(rows):
        raise DataError(
            f"data.max_length: {encoding.max_length} tokens leave nothing to train on: the shortest prompt alone has "
            f"{tally.shortest_prompt} tokens. Raise data.max_length."
        )
    return rows
