"""The page of `ftlib lr-find`: the loss after the test against the learning rate, and each rate's steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ftlib.files.atomic import write_text
from ftlib.report.shapes import ACCENT, MUTED, Chart, Line, Section, Table
from ftlib.report.template import digest, plain_lines, script, script_json, style, template
from ftlib.report.words import NONE, number

STEEPEST = 2.0  # a loss above so many times the first one is left out of the chart: the others would lie flat


@dataclass(frozen=True)
class ShownRate:
    """A rate as the page has it: the loss of each step, and on held-out rows after the last; None where it broke."""

    rate: float
    losses: Sequence[float]
    after: float | None


@dataclass(frozen=True)
class ShownTest:
    """A test as the page has it. `before` is the loss of the untuned base, `found` the sentence on the range from `low`
    to `high`, both 0 where there is none."""

    name: str
    rates: Sequence[ShownRate]
    before: float
    found: str
    low: float = 0.0
    high: float = 0.0


def write_rates(file: Path, test: ShownTest) -> None:
    """Writes the page. Raises FtlibError where nothing can be written."""
    sections = [_after(test), _steps(test.rates)]
    scripts = [plain_lines(get_plotlyjs()), script("page.js")]
    charts = [chart.drawn for section in sections for chart in section.charts]
    text = template("rates.html").render(
        name=test.name,
        found=test.found,
        sections=sections,
        charts=script_json(charts),
        style=style("page.css"),
        scripts=[Markup(one) for one in scripts],
        hashes=Markup(" ".join(map(digest, scripts))),
    )
    write_text(file, text)


def _after(test: ShownTest) -> Section:
    known = [one for one in test.rates if one.after is not None and one.after < STEEPEST * test.before]
    ends = [test.rates[0].rate, test.rates[-1].rate]
    traces: list[dict[str, Any]] = [
        _line([one.rate for one in known], [one.after for one in known], "after the test", ACCENT),
        _line(ends, [test.before, test.before], "untuned base", MUTED),
    ]
    shape = {"type": "rect", "xref": "x", "yref": "paper", "x0": test.low, "x1": test.high, "y0": 0, "y1": 1}
    layout: dict[str, Any] = {
        "xaxis": {"type": "log", "title": {"text": "learning rate"}, "exponentformat": "e"},
        "yaxis": {"title": {"text": "loss on held-out rows"}},
        "shapes": [{**shape, "fillcolor": ACCENT, "opacity": 0.12, "line": {"width": 0}}] if test.high else [],
    }
    lines = [Line([f"{one.rate:.3g}", NONE if one.after is None else number(one.after)]) for one in test.rates]
    table = Table("Loss after the test", ["Learning rate", "Loss"], lines, frozenset([0, 1]))
    chart = Chart("rates", "The range is shaded.", traces, layout, 380, table)
    return Section("rates", "Loss after the test", charts=[chart])


def _steps(rates: Sequence[ShownRate]) -> Section:
    first = next((one.losses[0] for one in rates if one.losses), 1.0)
    traces = [_steps_of(one, first) for one in rates]
    layout = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "training loss"}}}
    return Section("steps", "Steps", "A line is a learning rate.", [Chart("steps", "Training loss.", traces, layout)])


def _steps_of(one: ShownRate, first: float) -> dict[str, Any]:
    shown = [_bounded(loss, first) for loss in one.losses]
    return _line(list(range(1, len(shown) + 1)), shown, f"{one.rate:.3g}", None)


def _bounded(loss: float, first: float) -> float | None:
    return loss if loss == loss and loss < STEEPEST * first else None


def _line(x: list[Any], y: list[Any], name: str, colour: str | None) -> dict[str, Any]:
    line = {"width": 2} | ({"color": colour} if colour else {})
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": line}
