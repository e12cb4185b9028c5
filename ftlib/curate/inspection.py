"""All that `ftlib data report` says of a data set: how much there is, in what, and what a person should look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ftlib.curate.cells import odd_cells
from ftlib.curate.collected import Collected
from ftlib.curate.contamination import contaminated, grams_of
from ftlib.curate.cut_answers import cut_answers
from ftlib.curate.languages import UNKNOWN, language
from ftlib.curate.near_duplicates import NEAR, groups, near_rows
from ftlib.curate.odd import Strange, strangest
from ftlib.curate.personal_data import find, redact
from ftlib.curate.phones import REGIONS
from ftlib.data.findings import DIFFER, NOTHING, contradicting, counted
from ftlib.data.labels import alike

SHOWN = 10  # rows of a finding that are shown
EXCERPT = 160  # characters of a text that are shown
LANGUAGES = 2_000  # rows whose language is read, spread over all; it takes 0.3 ms each
EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True)
class Example:
    """A row of a finding: where it stands, what is wrong with it or which row it is like, and how it begins. Personal
    data is not in it."""

    where: str
    why: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What concerns `count` rows. `kind` names it for programs; the sentence for people."""

    kind: str
    sentence: str
    count: int
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """`lengths` are of each row, in order, in `unit`; `window` is how long a row may be for the model that is named."""

    source: str
    format: str
    rows: int
    whole: bool  # whether these are all rows of the files
    unit: str
    lengths: tuple[int, ...]
    window: int | None
    languages: dict[str, int]  # of `of_languages` rows
    of_languages: int
    labels: dict[str, int]
    findings: tuple[Finding, ...]
    strange: tuple[Example, ...]
    looked_for: tuple[str, ...] = field(default=())  # files of evaluation and benchmarks

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; of the lengths, some quantiles."""
        told = asdict(self)
        told["lengths"] = {f"p{percent}": self.length(percent) for percent in (0, 5, 25, 50, 75, 95, 99, 100)}
        return told | {"longer_than_window": self.longer}

    def length(self, percent: int) -> int:
        """The length that so many percent of the rows do not exceed."""
        return self.lengths[max(0, -(-len(self.lengths) * percent // 100) - 1)]

    @property
    def longer(self) -> int | None:
        """How many rows are longer than the window."""
        return None if self.window is None else sum(length > self.window for length in self.lengths)

    def sentences(self) -> Iterator[str]:
        """What there is, then the findings."""
        rows = f"{'' if self.whole else 'the first '}{counted(self.rows, 'row')}"
        yield (
            f"{self.source}: {rows}, {self.format}; half up to {self.length(50):,} {self.unit}, "
            f"95 % up to {self.length(95):,}, the longest {self.length(100):,}"
        )
        if self.longer:
            yield f"{counted(self.longer, 'row')} longer than the model's {self.window:,} {self.unit}"
        yield f"languages: {', '.join(f'{code} {self._share(count)}' for code, count in self.languages.items())}"
        if self.labels:
            first = [f"{label} ({count:,})" for label, count in list(self.labels.items())[:8]]
            yield f"labels: {len(self.labels)}: {', '.join(first)}{' ...' * (len(self.labels) > 8)}"
        yield from (finding.sentence for finding in self.findings)

    def _share(self, count: int) -> str:
        share = 100 * count / max(self.of_languages, 1)
        return f"{share:.0f} %" if share >= 1 else "< 1 %"


def inspect(
    rows: Collected,
    format_name: str,
    kind: str,
    *,
    evaluation: Collected | None = None,
    benchmarks: Sequence[tuple[str, Sequence[str]]] = (),
    whole: bool = True,
    lengths: Sequence[int] | None = None,
    window: int | None = None,
    regions: Sequence[str] = REGIONS,
) -> Inspection:
    """Looks at rows. `kind` is that of rows (`labelled`, `pairs` ...), `lengths` their tokens, where a model is named,
    and `window` how many it takes; `benchmarks` are names and texts that must not stand in the rows."""
    spoken = _languages(rows.texts)
    labels = Counter(row.label for row in rows.gists if row.label is not None)
    strange = strangest(rows.texts, [spoken.get(row, UNKNOWN) for row in range(len(rows))])
    found = [
        *_labels(labels, kind),
        *_cells(rows),
        *_duplicates(rows),
        *_contradictions(rows, kind),
        *([] if evaluation is None else _evaluation(rows, evaluation)),
        *(one for name, texts in benchmarks for one in _benchmark(rows, name, texts)),
        *_personal(rows, regions),
        *_cut(rows),
    ]
    return Inspection(
        source=rows.name,
        format=format_name,
        rows=len(rows),
        whole=whole,
        unit="characters" if lengths is None else "tokens",
        lengths=tuple(sorted(map(len, rows.texts) if lengths is None else lengths)),
        window=window,
        languages=dict(Counter(spoken.values()).most_common()),
        of_languages=len(spoken),
        labels=dict(labels.most_common()),
        findings=tuple(found),
        strange=tuple(_strange(rows, strange)),
        looked_for=tuple(([evaluation.name] if evaluation else []) + [name for name, _ in benchmarks]),
    )


def _languages(texts: Sequence[str]) -> dict[int, str]:
    """The language of some rows, by their places."""
    step = max(1, -(-len(texts) // LANGUAGES))
    return {row: language(texts[row]) for row in range(0, len(texts), step)}


def _labels(labels: Counter[str], kind: str) -> Iterator[Finding]:
    sentence = alike(labels) if kind == "labelled" else None
    if sentence:
        yield Finding("labels", sentence, len(labels))


def _cells(rows: Collected) -> Iterator[Finding]:
    if rows.bad:
        first = tuple(Example(*bad.split(": ", 1)) for bad in rows.bad[:SHOWN])
        yield Finding("unusable", f"{counted(len(rows.bad), 'row')} cannot be used", len(rows.bad), first)
    for odd in odd_cells(rows.rows):
        sentence = f"column '{odd.column}' {odd.what} in {counted(odd.count, 'row')}, first {odd.where[0]}"
        kind = "empty" if odd.what == "is empty" else "odd_cells"
        yield Finding(kind, sentence, odd.count, tuple(map(Example, odd.where)))


def _duplicates(rows: Collected) -> Iterator[Finding]:
    first: dict[int, int] = {}
    same = {row: before for row, one in enumerate(rows.gists) if (before := first.setdefault(one.said, row)) != row}
    if same:
        sentence = f"{counted(len(same), 'row')} {_repeat(len(same))} another but for case and space"
        yield Finding("exact_duplicates", sentence, len(same), _like(rows, same, rows))
    named = groups(rows.signatures)
    near = {row: int(other) for row, other in enumerate(named) if other != row and row not in same}
    if near:
        sentence = f"{counted(len(near), 'row')} nearly {_repeat(len(near))} another ({NEAR:.0%} of the words or more)"
        yield Finding("near_duplicates", sentence, len(near), _like(rows, near, rows))


def _contradictions(rows: Collected, kind: str) -> Iterator[Finding]:
    cases = contradicting([row.judged for row in rows.gists], [row.verdict for row in rows.gists])
    if cases:
        what, concerned = DIFFER.get(kind, "the same prompt has different answers"), sum(map(len, cases))
        sentence = f"{what} in {counted(concerned, 'row')} ({counted(len(cases), 'case')})"
        yield Finding("contradictions", sentence, concerned, _like(rows, {case[1]: case[0] for case in cases}, rows))


def _evaluation(rows: Collected, held_out: Collected) -> Iterator[Finding]:
    """Rows of the evaluation that stand in the training data, each counted once: as the surest of these."""
    said = {one.said: row for row, one in reversed(list(enumerate(rows.gists)))}
    asked = {one.asked: row for row, one in reversed(list(enumerate(rows.gists)))}
    same = {row: said[one.said] for row, one in enumerate(held_out.gists) if one.said in said}
    alike_rows = {
        row: asked[one.asked]
        for row, one in enumerate(held_out.gists)
        if row not in same and one.asked in asked and one.asked != NOTHING
    }
    known = same | alike_rows
    named = near_rows(held_out.signatures, rows.signatures)
    near = {row: int(other) for row, other in enumerate(named) if other >= 0 and row not in known}
    shared = contaminated(held_out.texts, grams_of(rows.texts))
    grams = {row: int(other) for row, other in enumerate(shared) if other >= 0 and row not in known | near}
    for kind, found, what in (
        ("same", same, "stand in the training data"),
        ("asked", alike_rows, "ask what a training row asks"),
        ("near", near, "nearly repeat a training row"),
        ("grams", grams, "have 13 words in a row in common with a training row"),
    ):
        if found:
            sentence = f"{len(found):,} of {counted(len(held_out), 'row')} of {held_out.name} {what}"
            yield Finding(f"{EVALUATION}_{kind}", sentence, len(found), _like(held_out, found, rows))


def _benchmark(rows: Collected, name: str, texts: Sequence[str]) -> Iterator[Finding]:
    shared = contaminated(rows.texts, grams_of(texts))
    found = [row for row, place in enumerate(shared) if place >= 0]
    if found:
        sentence = f"{counted(len(found), 'row')} have 13 words in a row in common with the benchmark {name}"
        first = [
            Example(rows.where[row], f"row {shared[row] + 1} of {name}", _shown(rows, row)) for row in found[:SHOWN]
        ]
        yield Finding("benchmark", sentence, len(found), tuple(first))


def _personal(rows: Collected, regions: Sequence[str]) -> Iterator[Finding]:
    found: dict[str, list[int]] = {}
    for row, text in enumerate(rows.texts):
        for kind in {span.kind for span in find(text, (), regions)}:
            found.setdefault(kind, []).append(row)
    for kind, there in sorted(found.items(), key=lambda item: -len(item[1])):
        sentence = f"{counted(len(there), 'row')} with personal data: {kind}, first {rows.where[there[0]]}"
        first = tuple(Example(rows.where[row], kind, _around(rows.texts[row], kind)) for row in there[:SHOWN])
        yield Finding(f"personal_{kind}", sentence, len(there), first)


def _cut(rows: Collected) -> Iterator[Finding]:
    cut = cut_answers(rows.answered)
    if cut.rows:
        end = "ends" if len(cut.rows) == 1 else "end"
        at = "" if cut.length is None else f", most of them near {cut.length:,} characters, as a limit cuts them"
        sentence = f"{counted(len(cut.rows), 'answer')} {end} in the middle of a sentence{at}"
        first = [Example(rows.where[row], "", f"… {redact(rows.answered[row][-EXCERPT:])}") for row in cut.rows[:SHOWN]]
        yield Finding("cut_answers", sentence, len(cut.rows), tuple(first))


def _strange(rows: Collected, strange: Sequence[Strange]) -> Iterator[Example]:
    for one in strange:
        yield Example(rows.where[one.row], one.why, _shown(rows, one.row))


def _like(rows: Collected, found: dict[int, int], others: Collected) -> tuple[Example, ...]:
    """The first rows of a finding, each with the row that it is like."""
    first = list(found.items())[:SHOWN]
    return tuple(Example(rows.where[row], f"like {others.where[other]}", _shown(rows, row)) for row, other in first)


def _shown(rows: Collected, row: int) -> str:
    """How a row begins, without personal data."""
    return shorten(redact(rows.texts[row][: 4 * EXCERPT]))


def _around(text: str, kind: str) -> str:
    """The text around the first of a kind of personal data, without any."""
    start = next(span.start for span in find(text) if span.kind == kind)
    return shorten(redact(text[max(0, start - EXCERPT // 2) : start + EXCERPT]))


def shorten(text: str) -> str:
    """One line of at most `EXCERPT` characters."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[: EXCERPT - 1]}…"


def _repeat(count: int) -> str:
    return "repeats" if count == 1 else "repeat"
