"""The page of `ftlib data report`: what stands in a data set, and what a person should look at.

One file without a network, as `report.html` is; what comes from rows is escaped, and personal data is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ftlib.curate.inspection import Example, Finding, Inspection
from ftlib.files.atomic import write_json, write_text
from ftlib.report.shapes import ACCENT, BAD, Chart, Line, Section, Table
from ftlib.report.template import digest, plain_lines, script, script_json, style, template
from ftlib.report.words import count, inert, percent

BARS = 20  # of a chart; the rest are one bar
CELLS = ("empty", "odd_cells")
TITLES = {
    "labels": "Labels",
    "unusable": "Rows that cannot be used",
    "exact_duplicates": "Exact duplicates",
    "near_duplicates": "Near duplicates",
    "contradictions": "Contradictions",
    "evaluation_same": "Evaluation rows in the training data",
    "evaluation_asked": "Evaluation questions in the training data",
    "evaluation_near": "Evaluation rows near a training row",
    "evaluation_grams": "Evaluation rows with 13 words of a training row",
    "benchmark": "Benchmark texts in the rows",
    "cut_answers": "Cut answers",
}


def write_data_report(found: Inspection, out: Path) -> Path:
    """Writes the page to `out`, and the same as JSON beside it; returns where the JSON is. Raises FtlibError where
    nothing can be written."""
    beside = out.with_suffix(".json")
    write_text(out, page(found))
    write_json(beside, found.to_json())
    return beside


def page(found: Inspection) -> str:
    """The page's HTML."""
    sections = [*_charts(found), *_findings(found)]
    scripts = [plain_lines(get_plotlyjs()), script("page.js")]
    return template("data_page.html").render(
        name=Path(found.source).name,
        path=found.source,
        about=list(_about(found)),
        verdict=_verdict(found),
        findings=[(_anchor(place, one), one.sentence) for place, one in enumerate(found.findings)],
        sections=sections,
        charts=script_json([chart.drawn for told in sections for chart in told.charts]),
        style=style("data_page.css"),
        scripts=[Markup(one) for one in scripts],
        hashes=Markup(" ".join(map(digest, scripts))),
    )


def _about(found: Inspection) -> Iterator[str]:
    yield f"{'' if found.whole else 'the first '}{count(found.rows, 'row')}"
    yield found.format
    yield f"half up to {found.length(50):,} {found.unit}"
    for name in found.looked_for:
        yield f"compared with {Path(name).name}"


def _verdict(found: Inspection) -> str:
    number = len(found.findings)
    return f"{count(number, 'finding')} in {count(found.rows, 'row')}" if number else "Nothing was found"


def _charts(found: Inspection) -> Iterator[Section]:
    yield Section("lengths", "Lengths", charts=[_lengths(found)], facts=_quantiles(found))
    yield _bars("languages", "Languages", found.languages, found.of_languages)
    if found.labels:
        yield _bars("labels", "Labels", found.labels, sum(found.labels.values()))


def _quantiles(found: Inspection) -> list[tuple[str, str]]:
    places = {
        "Shortest": 0,
        "A quarter up to": 25,
        "Half up to": 50,
        "95 % up to": 95,
        "99 % up to": 99,
        "Longest": 100,
    }
    facts = [(name, f"{found.length(at):,} {found.unit}") for name, at in places.items()]
    if found.window is not None:
        facts.append((f"Longer than the model's {found.window:,}", count(found.longer or 0, "row")))
    return facts


def _lengths(found: Inspection) -> Chart:
    rows, edges = np.histogram(found.lengths, bins=min(40, max(5, len(set(found.lengths)))))
    middles = [round(float(left + right) / 2, 1) for left, right in pairwise(edges)]
    bars = {"type": "bar", "x": middles, "y": rows.tolist(), "marker": {"color": ACCENT}, "name": "rows"}
    layout = {"xaxis": {"title": {"text": found.unit}}, "yaxis": {"title": {"text": "rows"}}, "bargap": 0.05}
    if found.window is not None and found.window <= edges[-1]:
        line = {"type": "line", "x0": found.window, "x1": found.window, "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"] = [line | {"line": {"color": BAD, "dash": "dash"}}]
    fact = (
        f"How long rows are, in {found.unit}: half of them up to {found.length(50):,}, 95 % up to {found.length(95):,}"
    )
    return Chart("lengths", fact, [bars], layout, height=260)


def _bars(name: str, title: str, counts: dict[str, int], total: int) -> Section:
    """How many rows have each name, as bars."""
    shown = dict(list(counts.items())[:BARS])
    if len(counts) > BARS:
        shown["others"] = sum(list(counts.values())[BARS:])
    names = [inert(one) for one in shown]
    bars = {"type": "bar", "orientation": "h", "x": list(shown.values()), "y": names, "marker": {"color": ACCENT}}
    layout = {
        "xaxis": {"title": {"text": "rows"}},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "bargap": 0.3,
    }
    lines = [Line([one, f"{rows:,}", percent(rows / max(total, 1))]) for one, rows in shown.items()]
    table = Table(f"{title} of {count(total, 'row')}", [title[:-1], "Rows", "Share"], lines, frozenset([1, 2]))
    first = next(iter(shown), "none")
    fact = f"{title} of {count(total, 'row')}: most are '{first}'"
    return Section(name, title, charts=[Chart(name, fact, [bars], layout, height=90 + 28 * len(shown), table=table)])


def _findings(found: Inspection) -> Iterator[Section]:
    cells = [one for one in found.findings if one.kind in CELLS]
    if cells:
        lines = [Line([f"{one.count:,}", one.sentence, ", ".join(row.where for row in one.examples)]) for one in cells]
        columns = ["Rows", "What", "The first of them"]
        yield Section("cells", "Cells", tables=[Table("Empty and odd cells", columns, lines, frozenset([0]), header=1)])
    for place, one in enumerate(found.findings):
        if one.examples and one.kind not in CELLS:
            yield Section(
                _anchor(place, one), _title(one), f"{one.sentence}.", tables=[_table(one.examples, _title(one))]
            )
    if found.strange:
        lead = "The rows that are least like the others, the strangest first. They may be right."
        yield Section("strange", "The strangest rows", lead=lead, tables=[_table(found.strange, "The strangest rows")])


def _title(finding: Finding) -> str:
    kind, _, what = finding.kind.partition("_")
    return f"Personal data: {what.replace('_', ' ')}" if kind == "personal" else TITLES[finding.kind]


def _table(examples: tuple[Example, ...], caption: str) -> Table:
    """Only the columns in which something stands."""
    columns = {"Row": [one.where for one in examples], "Why": [one.why for one in examples]}
    columns["Text"] = [one.text for one in examples]
    there = {name: cells for name, cells in columns.items() if any(cells)}
    lines = [Line(list(cells)) for cells in zip(*there.values(), strict=True)]
    return Table(f"{caption}: the first {count(len(lines), 'row')}", list(there), lines)


def _anchor(place: int, finding: Finding) -> str:
    """The section of a finding; '' where it has none."""
    if finding.kind in CELLS:
        return "cells"
    return f"finding-{place + 1}" if finding.examples else ""
