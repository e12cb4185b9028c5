"""What became of the data: the rows, the tokens, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

LISTED = 8  # labels in the summary


@dataclass(frozen=True)
class Lengths:
    """Tokens in a row of the training part."""

    min: int
    mean: float
    p50: int
    p95: int
    max: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths:
        """Percentiles are nearest-rank: lengths that occur. `lengths` must not be empty."""
        ordered = sorted(lengths)
        p50, p95 = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95))
        return cls(ordered[0], round(sum(ordered) / len(ordered), 1), p50, p95, ordered[-1])


@dataclass(frozen=True)
class DataReport:
    """One data set, prepared. Counts of rows are over both parts; tokens and lengths are the training part's."""

    rows: str  # the kind of rows: answers, text, pairs ...
    format: str
    template: str
    max_length: int
    rows_read: int
    skipped: int  # bad rows left out
    skipped_rows: tuple[str, ...]  # the first 20, as "train.jsonl:17: reason"
    truncated: int
    dropped: int  # rows with nothing left to learn after truncation
    train_rows: int
    eval_rows: int
    train_tokens: int
    trained_tokens: int  # those with a label
    lengths: Lengths
    labels: tuple[str, ...] = ()  # of a classifier, in the order of their numbers
    unweighted: int = 0  # rows that say themselves that they are not trained on
    label_counts: dict[str, tuple[int, int]] = field(default_factory=dict)  # label: rows for training, for evaluation
    long: int = 0  # rows of more than max_length tokens, left out
    split: int = 0  # rows of more than max_length tokens that became several
    odd: tuple[str, ...] = ()  # sentences on what a person should look at

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; `from_json` is the way back."""
        lists = {name: list(getattr(self, name)) for name in ("skipped_rows", "labels", "odd")}
        return asdict(self) | lists | {"label_counts": {name: list(pair) for name, pair in self.label_counts.items()}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DataReport:
        """Raises TypeError or KeyError when `value` is not what `to_json` gave."""
        lists = {name: tuple(value.get(name, ())) for name in ("skipped_rows", "labels", "odd")}
        counts = {name: (train, held_out) for name, (train, held_out) in value.get("label_counts", {}).items()}
        return cls(**value | lists | {"label_counts": counts, "lengths": Lengths(**value["lengths"])})

    def summary(self) -> str:
        """Two lines and more for the terminal: what is there, what was left out, what is odd."""
        rows = "blocks" if self.rows == "text" else "rows"
        lengths = self.lengths
        lines = [
            f"data: {self.train_rows:,} {rows} for training, {self.eval_rows:,} for evaluation "
            f"({self.format}, template {self.template})",
            f"tokens: {self.train_tokens:,} for training, {self.trained_tokens:,} of them trained on; "
            f"mean {lengths.mean:,.0f}, p95 {lengths.p95:,}, longest {lengths.max:,}",
        ]
        if self.truncated:
            lines[-1] += f"; {_rows(self.truncated)} truncated to {self.max_length:,}"
        if self.split:
            lines[-1] += f"; {_rows(self.split)} split into rows of at most {self.max_length:,}"
        if self.labels:
            lines.append(f"labels: {len(self.labels)} ({', '.join(self.labels[:8])}{' ...' * (len(self.labels) > 8)})")
        if self.label_counts:
            lines.append(f"rows a label, training + evaluation: {self._counts()}")
        if self.dropped:
            lines.append(f"dropped: {_rows(self.dropped)} with nothing to train on within {self.max_length:,} tokens")
        if self.long:
            lines.append(f"left out: {_rows(self.long)} of more than {self.max_length:,} tokens (data.long_rows: drop)")
        if self.skipped:
            lines.append(f"skipped: {_rows(self.skipped)} that cannot be used, first {self.skipped_rows[0]}")
        if self.unweighted:
            lines.append(f"left out: {_rows(self.unweighted)} of weight 0")
        return "\n".join([*lines, *(f"note: {sentence}" for sentence in self.odd)])

    def _counts(self) -> str:
        most = sorted(self.label_counts.items(), key=lambda item: -sum(item[1]))
        first = [f"{name} {train:,} + {held_out:,}" for name, (train, held_out) in most[:LISTED]]
        return ", ".join(first) + " ..." * (len(most) > LISTED)


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"
