"""The rows of a source on their way to tokens: joined, split, repeated, mixed; each as the items that were made of
it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ftlib.config.data import DataSection
from ftlib.data.findings import Gist
from ftlib.data.kinds import Kind
from ftlib.data.split import held_out_rows, wanted_rows
from ftlib.data.tokenize import SPARE, Encoding, Tally, lengths
from ftlib.errors import DataError


@dataclass(frozen=True)
class Part:
    """The rows of one source, where each stands, the items that the kind's `render` made of it, and its gist. `whole`:
    their texts are plain, and take the tokenizer's own special tokens."""

    format: str
    where: list[str]
    items: list[list[Any]]
    gists: list[Gist]
    whole: bool
    source: list[int] = field(default_factory=list)  # which training set each row is of

    def pick(self, rows: Sequence[int]) -> Part:
        """Some of the rows, in the order asked for."""
        return replace(
            self,
            where=[self.where[row] for row in rows],
            items=[self.items[row] for row in rows],
            gists=[self.gists[row] for row in rows],
            source=[self.source[row] for row in rows if self.source],
        )

    def all_items(self) -> list[Any]:
        return [item for items in self.items for item in items]


def joined(parts: Sequence[Part]) -> Part:
    """The rows of all training sets, one set after another."""
    if len({part.whole for part in parts}) > 1:
        raise DataError("data.train: plain text and conversations do not mix: give all training sets the same shape.")
    return replace(
        parts[0],
        format=" + ".join(dict.fromkeys(part.format for part in parts)),
        where=[where for part in parts for where in part.where],
        items=[items for part in parts for items in part.items],
        gists=[gist for part in parts for gist in part.gists],
        source=[number for number, part in enumerate(parts) for _ in part.items],
    )


def without_equal(parts: Sequence[Part]) -> list[Part]:
    """The rows of each part that are equal to none before, in this part or an earlier one."""
    seen: set[bytes] = set()
    kept = [part.pick([row for row, items in enumerate(part.items) if _is_new(items, seen)]) for part in parts]
    if not all(part.items for part in kept):
        raise DataError("data.deduplicate: every evaluation row stands in the training rows too: name other rows.")
    return kept


def _is_new(items: list[Any], seen: set[bytes]) -> bool:
    digest = hashlib.sha256(repr(items).encode()).digest()
    is_new = digest not in seen
    seen.add(digest)
    return is_new


def weighted(train: Part, weights: Sequence[float], seed: int) -> Part:
    """Each row as often as the weight of its set says; the broken part of a weight is a drawn share of the set's
    rows."""
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


def mixed(train: Part, replay: Part, fraction: float, seed: int) -> Part:
    """Both together, `fraction` of them drawn from `replay`, or all that it has. Trainers shuffle."""
    if train.whole != replay.whole:
        raise DataError("data.replay.train: plain text and conversations do not mix: give both the same shape.")
    count = min(round(len(train.items) * fraction / (1 - fraction)), len(replay.items))
    return replace(train, items=train.items + random.Random(seed).sample(replay.items, count))


def without_long(kind: Kind, part: Part, encoding: Encoding, data: DataSection) -> Part:
    """The rows of at most `max_length` tokens, where `data.long_rows` drops longer ones; else all of them.

    Raises DataError for a longer row where it is an error, and where no row is left.
    """
    if data.long_rows not in ("drop", "error"):
        return part
    texts = [(row, text) for row, items in enumerate(part.items) for item in items for text in kind.whole(item)]
    counted = zip(texts, lengths((text for _, text in texts), encoding), strict=True)
    long = {row: count for (row, _), count in counted if count > encoding.max_length}
    if long and data.long_rows == "error":
        row = min(long)
        raise DataError(
            f"{part.where[row]}: it has {long[row]:,} tokens, data.max_length is {encoding.max_length:,}, and "
            "data.long_rows is error: raise data.max_length, or set long_rows: cut, drop or split."
        )
    if len(long) == len(part.items):
        raise DataError(
            f"data.long_rows: drop leaves no row: all {len(long):,} have more than {encoding.max_length:,} tokens "
            f"(data.max_length), the shortest {min(long.values()):,}."
        )
    return part.pick([row for row in range(len(part.items)) if row not in long]) if long else part


def fitting(kind: Kind, part: Part, encoding: Encoding) -> Part:
    """The rows of which something is left to learn within `max_length`. Raises DataError when that is none."""
    room = max(encoding.max_length - SPARE, 0)
    perhaps = [
        row for row, items in enumerate(part.items) if any(len(kind.lead(item).encode()) > room for item in items)
    ]
    tally = Tally()
    if perhaps:
        kind.tokens([item for row in perhaps for item in part.items[row]], encoding, tally)
    of_item = [row for row in perhaps for _ in part.items[row]]
    lost = Counter(of_item[item] for item in tally.dropped_items)
    out = {row for row, count in lost.items() if count == len(part.items[row])}
    if len(out) == len(part.items):
        raise too_long(encoding.max_length, tally, "train")
    return part.pick([row for row in range(len(part.items)) if row not in out]) if out else part


def too_long(max_length: int, tally: Tally, to: str) -> DataError:
    """What is said when no row fits. `to`: train or evaluate."""
    of = "of data.eval, whose" if to == "evaluate" else "to train on: the"
    return DataError(
        f"data.max_length: {max_length} tokens leave nothing {of} shortest prompt alone has {tally.shortest_prompt} "
        "tokens. Raise data.max_length."
    )


def split(part: Part, data: DataSection) -> tuple[Part, Part]:
    """A seeded share of the rows for evaluation, and the rest; both in the order of the file."""
    count = len(part.items)
    if not data.eval_split:
        return part, part.pick([])
    if count < 2:
        names = "', '".join(str(section.train) for _, _, section in data.sources)
        raise DataError(
            f"data.train: '{names}' needs at least 2 rows that fit data.max_length, one to train on and one to "
            "evaluate "
            "on, or a file of its own in data.eval."
        )
    labels = [gist.label for gist in part.gists if gist.label is not None]
    chosen = held_out_rows(
        [gist.asked for gist in part.gists],
        [gist.said for gist in part.gists],
        labels if len(labels) == count else None,
        data.eval_split,
        data.split_seed,
        [gist.group for gist in part.gists] if data.group is not None else None,
    )
    if not chosen:
        raise _no_group_fits(part, data)
    kept = set(range(count)) - set(chosen)
    return part.pick(sorted(kept)), part.pick(chosen)


def _no_group_fits(part: Part, data: DataSection) -> DataError:
    count, sizes = len(part.items), Counter(gist.group for gist in part.gists)
    if len(sizes) == 1:
        return DataError(f"data.group: all {count:,} rows have the same '{data.group}', so none can be held out.")
    return DataError(
        f"data.group: data.eval_split: {data.eval_split:g} holds out {wanted_rows(count, data.eval_split):,} of "
        f"{count:,} rows, and the smallest group of one '{data.group}' has {min(sizes.values()):,}: raise "
        "data.eval_split."
    )
