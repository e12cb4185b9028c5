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

STEEPEST = 20.0  # a loss above so many times the first one is left out of the chart: the others would lie flat


@dataclass(frozen=True)
class ShownRate:
    """A rate as the page has it: the loss of each step, and on held-out rows after the last; None where it broke."""

    rate: float
    losses: Sequence[float]
    after: float | None


def write_rates(file: Path, name: str, rates: Sequence[ShownRate], before: float, found: str, low: float, high: float) -> None:
    """Writes the page. `found` is the sentence on the suggested range from `low` to `high`, both 0 where there is none;
    `before` is the loss of the untuned base. Raises FtlibError where nothing can be written."""
    sections = [_after(rates, before, low, high), _steps(rates)]
    scripts = [plain_lines(get_plotlyjs()), script("page.js")]
    charts = [chart.drawn for section in sections for chart in section.charts]
    text = template("rates.html").render(
        name=name,
        found=found,
        sections=sections,
        charts=script_json(charts),
        style=style("page.css"),
        scripts=[Markup(one) for one in scripts],
        hashes=Markup(" ".join(map(digest, scripts))),
    )
    write_text(file, text)


def _after(rates: Sequence[ShownRate], before: float, low: float, high: float) -> Section:
    known = [one for one in rates if one.after is not None and one.after < STEEPEST * before]
    traces: list[dict[str, Any]] = [
        _line([one.rate for one in known], [one.after for one in known], "after the test", ACCENT),
        _line([rates[0].rate, rates[-1].rate], [before, before], "untuned base", MUTED),
    ]
    shape = {"type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1}
    layout: dict[str, Any] = {
        "xaxis": {"type": "log", "title": {"text": "learning rate"}, "exponentformat": "e"},
        "yaxis": {"title": {"text": "loss on held-out rows"}},
        "shapes": [{**shape, "fillcolor": ACCENT, "opacity": 0.12, "line": {"width": 0}}] if high else [],
    }
    lines = [Line([f"{one.rate:.3g}", NONE if one.after is None else number(one.after)]) for one in rates]
    table = Table("Loss after the test", ["Learning rate", "Loss"], lines, frozenset([0, 1]))
    return Section("rates", "Loss after the test", "", [Chart("rates", "The range is shaded.", traces, layout, 380, table)])


def _steps(rates: Sequence[ShownRate]) -> Section:
    first = next((one.losses[0] for one in rates if one.losses), 1.0)
    traces = [
        _line(list(range(1, len(one.losses) + 1)), [_bounded(loss, first) for loss in one.losses], f"{one.rate:.3g}", None)
        for one in rates
    ]
    layout = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "training loss"}}}
    return Section("steps", "Steps", "A line is a learning rate.", [Chart("steps", "Training loss.", traces, layout, 380)])


def _bounded(loss: float, first: float) -> float | None:
    return loss if loss == loss and loss < STEEPEST * first else None


def _line(x: list[Any], y: list[Any], name: str, colour: str | None) -> dict[str, Any]:
    line = {"width": 2} | ({"color": colour} if colour else {})
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": line}
