"""From `data:` and a tokenizer to rows of tokens, once: read, normalize, render, split, tokenize, store.

What the same data, settings, method and tokenizer gave before is taken from the cache.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ftlib.config.data import DataSection
from ftlib.config.methods import Rows
from ftlib.data.cache import Prepared, cache_key, kept, load_prepared, store
from ftlib.data.fields import BadRow, Unweighted, printed
from ftlib.data.findings import findings, gist, label_counts, no_stop, not_used, same_answers
from ftlib.data.formats import Record, detect, unused_fields
from ftlib.data.kinds import KINDS, Kind, method_for
from ftlib.data.labelled import label_names
from ftlib.data.labels import check_map, relabelled, written_labels
from ftlib.data.parts import (
    Part,
    fitting,
    joined,
    mixed,
    split,
    too_long,
    weighted,
    without_equal,
    without_long,
)
from ftlib.data.read import Row, Source, columns_of, find_source, read_rows, shorten
from ftlib.data.render import is_multi_turn
from ftlib.data.report import DataReport, Lengths
from ftlib.data.templates import template_for, template_name, use_template
from ftlib.data.tokenize import Encoding, Tally
from ftlib.data.turns import without_system
from ftlib.errors import DataError, nearest
from ftlib.files.home import home

if TYPE_CHECKING:
    import datasets

LISTED = 20  # bad rows that the report names

Item = TypeVar("Item")
Result = TypeVar("Result")
Placed = tuple[str, Item]  # where a row stands, and what became of it


@dataclass
class BadRows:
    """Bad rows, counted, the first few named; with `on_bad_row: error` the first is the end. Rows that say themselves
    that they are not trained on are left out and counted."""

    on_bad_row: str
    count: int = 0
    first: list[str] = field(default_factory=list)
    unweighted: int = 0
    unused: Counter[str] = field(default_factory=Counter)

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
            except Unweighted:
                self.unweighted += 1
        if not good and not self.first:
            raise DataError("no row is left to train on: every one says itself that it is not trained on (weight 0).")
        if not good:
            raise DataError(f"no row can be used: {'; '.join(self.first[:3])}.")
        return good


def prepare(data: DataSection, rows: Rows, tokenizer: Any, *, cache: Path | None = None) -> Prepared:
    """The tokenized rows of `data`, of the kind that a method trains on, from `cache` when they were made before.

    Sets `tokenizer.chat_template` to the template that the rows were written with. Raises DataError for data that
    cannot be used, and FtlibError when the cache cannot be written.
    """
    if tokenizer.eos_token is None and rows != "labelled":
        raise DataError("the tokenizer has no eos token, so no row could be ended: set one (tokenizer.eos_token).")
    sources = _sources(data)
    key = cache_key([source for source, _ in sources], data, rows, tokenizer)
    target = (cache or home() / "cache" / "data") / key
    prepared = None
    with contextlib.suppress(DataError):  # not there, or damaged: made again
        prepared = load_prepared(target)
    prepared = prepared or _build(sources, data, rows, tokenizer, target)
    if prepared.chat_template is not None:
        use_template(tokenizer, prepared.chat_template)
    return prepared


def prepare_again(
    data: DataSection,
    rows: Rows,
    tokenizer: Any,
    begun: str,
    *,
    only_unchanged: bool = False,
    cache: Path | None = None,
) -> tuple[Prepared, str | None]:
    """The rows that a run began with, by their hash, and a sentence where the files hold others now.

    The files as they are, where they give the same rows; else what the cache has kept. Raises DataError where it has
    not, or where it would not do (`only_unchanged`): trials over other rows are not compared.
    """
    folder = cache or home() / "cache" / "data"
    try:
        sources = _sources(data)
        if cache_key([source for source, _ in sources], data, rows, tokenizer) == begun:
            return prepare(data, rows, tokenizer, cache=cache), None
        changed = "the data gives other rows than when the run began"
    except DataError as gone:
        changed = f"the data of the run is not there any more ({str(gone).rstrip('.')})"
    prepared = None if only_unchanged else kept(folder, begun)
    if prepared is None:
        why = "some of its trials read it themselves" if only_unchanged else f"{folder} no longer has its rows"
        raise DataError(
            f"{changed}, and {why}: its trials would not be compared on the same rows. Put the old data back, or start "
            "a new run."
        )
    if prepared.chat_template is not None:
        use_template(tokenizer, prepared.chat_template)
    return (
        prepared,
        f"{changed}: the run goes on with the rows that it began with ({prepared.report.train_rows:,} rows)",
    )


def _sources(data: DataSection) -> list[tuple[Source, DataSection]]:
    """The training sets, then the rows to evaluate on and those to mix in, as far as they are named, and how to read
    each."""
    sources = [(find_source("train", section, called), section) for called, _, section in data.sources]
    if data.eval:
        sources.append((find_source("eval", data), data))
    if data.replay is not None:
        section = data.model_copy(update={**dict(data.replay.model_copy()), "group": None})
        sources.append((find_source("train", section, "replay.train"), section))
    return sources


def _build(
    sources: Sequence[tuple[Source, DataSection]], data: DataSection, rows: Rows, tokenizer: Any, target: Path
) -> Prepared:
    kind, bad = KINDS[rows], BadRows(data.on_bad_row)
    read = [read_rows(source, section) for source, section in sources]
    if data.eval != data.train:  # the gate reads one file as both, which need not have every label
        check_map(data.labels, written_labels(row.fields for rows_of in read for row in rows_of))
    parsed = [
        _parse(source, read_of, section, rows, bad) for (source, section), read_of in zip(sources, read, strict=True)
    ]
    template = _template(parsed, data, tokenizer)
    parts = [_rendered(kind, name, records, tokenizer, template, bad) for name, records in parsed]
    sets = len(data.sources)
    encoding = Encoding(
        tokenizer, data.max_length, parts[0].whole, data.train_on_prompt, splits=data.long_rows == "split"
    )
    read_all = sum(len(part.items) for part in parts)
    parts = [without_long(kind, part, replace(encoding, whole=part.whole), data) for part in parts]
    long = read_all - sum(len(part.items) for part in parts)
    replay = parts.pop() if data.replay is not None else None
    apart = [joined(parts[:sets]), *parts[sets:]]
    whole, *others = without_equal(apart) if data.deduplicate and data.eval != data.train else apart
    equal = sum(len(part.items) for part in apart) - len(whole.items) - sum(len(part.items) for part in others)
    train, held_out = (whole, others[0]) if data.eval else split(fitting(kind, whole, encoding), data)
    left_out = f"data.deduplicate leaves out {equal:,} rows that are equal to an earlier one." if equal else None
    notes = [left_out, no_stop(template, tokenizer), not_used(bad.unused), *findings(train.gists, held_out.gists, rows)]
    noted: dict[str, Any] = {
        "unweighted": bad.unweighted,
        "label_counts": label_counts(train.gists, held_out.gists),
        "long": long,
    }
    dropped = len(whole.items) - len(train.items) - len(held_out.items) if not data.eval else 0
    train = weighted(train, [weight for _, weight, _ in data.sources], data.split_seed)
    if replay is not None and data.replay is not None:
        train = mixed(train, replay, data.replay.fraction, data.split_seed)
    labels = label_names(train.all_items(), held_out.all_items()) if rows == "labelled" else ()

    tally, held_out_tally = Tally(), Tally()
    encoding = replace(encoding, labels=labels)
    train_rows = _tokens(kind, train, encoding, tally, "train")
    notes.append(same_answers(tally, rows, data.max_length))
    held_out_rows = train_rows.select([])
    if data.held_out:
        held_out_rows = _tokens(kind, held_out, replace(encoding, whole=held_out.whole), held_out_tally, "eval")
    report = DataReport(
        rows=rows,
        format=train.format,
        template=template_name(template, tokenizer),
        max_length=data.max_length,
        rows_read=sum(map(len, read)),
        skipped=bad.count,
        skipped_rows=tuple(bad.first),
        truncated=tally.truncated + held_out_tally.truncated,
        split=tally.split + held_out_tally.split,
        dropped=dropped + tally.dropped + held_out_tally.dropped,
        train_rows=len(train_rows),
        eval_rows=len(held_out_rows),
        train_tokens=sum(tally.lengths),
        trained_tokens=tally.trained_tokens,
        lengths=Lengths.of(tally.lengths),
        labels=labels,
        odd=tuple(note for note in notes if note),
        **noted,
    )
    return store(target, train_rows, held_out_rows, report, template)


def _parse(
    source: Source, rows: Sequence[Row], data: DataSection, wanted: Rows, bad: BadRows
) -> tuple[str, list[Placed[Record]]]:
    """The format of the rows, and the canonical record of each."""
    columns = columns_of(rows)
    name = detect(data.format, columns, f"data.{source.key}: {source.name}") if columns else ""
    group = data.group if data.eval is None else None
    if group is not None and columns and group not in columns:
        raise DataError(
            f"data.group: '{group}' is no column of {source.name}, which has: {', '.join(map(shorten, columns))}."
            + nearest(group, columns)
        )
    if name == "prompt_only" and name not in KINDS[wanted].formats:
        raise DataError(
            f"data.{source.key}: {source.name} has prompts and no column of answers that is known: name it, "
            f"data.columns: {{completion: ...}}. Its columns are {', '.join(map(shorten, columns))}."
        )
    if name and name not in KINDS[wanted].formats:
        raise DataError(
            f"data.{source.key}: {source.name} holds {name} rows, which are for method.type: {method_for(name)}; "
            f"this method needs {KINDS[wanted].needs} (set data.format to read the rows as another format)."
        )

    def record(row: Row) -> Record:
        if row.problem:
            raise BadRow(row.problem)
        fields = relabelled(row.fields, data.labels) if wanted in ("labelled", "judged") else row.fields
        known = KINDS[wanted].read(name, fields)
        known = without_system(known) if data.drop_system_message else known
        read = known | ({"prompt_too": True} if data.train_on_prompt else {})
        unused = unused_fields(name, row.fields, all_read=wanted == "prompts")
        bad.unused.update(field for field in unused if field != group)
        return read if group is None else read | {"group": _group(row.fields, group)}

    return name, bad.keep_good([(row.where, row) for row in rows], record)


def _group(fields: dict[str, Any], column: str) -> str:
    if fields.get(column) in (None, ""):
        raise BadRow(f"it has no '{column}', which data.group keeps rows together by")
    return printed(fields[column])


def _template(parsed: Sequence[tuple[str, list[Placed[Record]]]], data: DataSection, tokenizer: Any) -> str | None:
    records = [record for _, placed in parsed for _, record in placed]
    if all("text" in record for record in records):
        return None
    tools = any("tools" in record.get("given", ()) for record in records)
    return template_for(data, tokenizer, any(map(is_multi_turn, records)), tools)


def _rendered(
    kind: Kind, name: str, records: Sequence[Placed[Record]], tokenizer: Any, template: str | None, bad: BadRows
) -> Part:
    rendered = bad.keep_good(records, lambda record: (kind.render(record, tokenizer, template), gist(record)))
    return Part(
        name,
        [where for where, _ in rendered],
        [items for _, (items, _) in rendered],
        [summary for _, (_, summary) in rendered],
        whole=template is None or "text" in records[0][1],
    )


def _tokens(kind: Kind, part: Part, encoding: Encoding, tally: Tally, key: str) -> datasets.Dataset:
    rows = kind.tokens(part.all_items(), encoding, tally)
    if not len(rows):
        raise too_long(encoding.max_length, tally, "evaluate" if key == "eval" else "train")
    return rows
