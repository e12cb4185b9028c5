"""Which settings mattered: parallel coordinates, importance and slices of the swept parameters, by Optuna's plots."""

from __future__ import annotations

import json
import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator

from ftlib.report.shapes import ACCENT, MUTED, Chart, Line, Section, Table
from ftlib.report.study import Points
from ftlib.report.words import count, inert, percent, setting
from ftlib.run.leaderboard import Leaderboard

LINES = 200  # of the parallel coordinates: each trial is a line of its own
SLICES = 12  # parameters that get a slice, the most important first
ENOUGH = 5  # trials, from which on an importance is computed
BEST = 0.25  # the share of trials that is told from the others
FEW = 20  # below so many it is a hint


def settings(board: Leaderboard, points: Points) -> list[Section]:
    """The sections; none where fewer than two trials can be compared, or nothing differs between them."""
    if len(points.trials) < 2 or not points.distributions:
        return []
    importances = _importances(board, points)
    names = (
        [line.cells[0] for line in importances.table.lines]
        if importances and importances.table
        else list(points.distributions)
    )
    importance = _importance(importances, len(points.trials))
    return [_parallel(board, points), *([importance] if importance else []), _slices(board, points, names)]


def _direction(board: Leaderboard) -> str:
    return "minimize" if board.mode == "min" else "maximize"


def plain_figure(figure: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Traces and layout of a figure of Optuna's as plain JSON, its texts inert, without its title and its theme: the
    page has its own."""
    told = json.loads(figure.to_json())
    layout = {key: value for key, value in told["layout"].items() if key not in ("template", "title", "plot_bgcolor")}
    return [_inert(trace) for trace in told["data"]], _inert(layout)


def _inert(value: Any) -> Any:
    """All texts but templates: these are Optuna's, or are replaced."""
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, list):
        return [_inert(inner) for inner in value]
    if isinstance(value, dict):
        return {key: inner if key == "hovertemplate" else _inert(inner) for key, inner in value.items()}
    return value


def _parallel(board: Leaderboard, points: Points) -> Section:
    study = points.study(_direction(board), LINES)
    figure = optuna.visualization.plot_parallel_coordinate(study, target_name=board.metric)
    traces, layout = plain_figure(figure)
    lines = [trace for trace in traces if trace["mode"] == "lines"]  # the other one is Optuna's bar of colours
    lines.sort(key=lambda trace: trace["y"][0], reverse=board.mode == "min")  # Optuna has an order of its own
    for place, trace in enumerate(lines, 1):
        best = place == len(lines)
        trace["line"] = {"color": ACCENT, "width": 3.5 if best else 1.2}
        trace["opacity"] = 1 if best else 0.08 + 0.5 * (place / len(lines)) ** 2
    values = ", ".join(f"{name} {setting(value)}" for name, value in points.params[0].items())
    drawn = f", and the best {LINES} of {len(points.trials):,} are drawn" if len(points.trials) > LINES else ""
    fact = f"The best trial, {points.trials[0].trial}, has {values}."
    lead = f"A line is a trial{drawn}. The stronger it is, the better the trial; the bold one is the best."
    chart = Chart("parallel", fact, lines, layout, height=380)
    return Section("parallel", "Swept settings", f"{lead} All values are in the leaderboard.", [chart])


def _importances(board: Leaderboard, points: Points) -> Chart | None:
    """What sets the best quarter apart (PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255); None of too few trials."""
    if len(points.trials) < ENOUGH:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that few trials tell little; so does the page
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST)
        figure = optuna.visualization.plot_param_importances(points.study(_direction(board)), evaluator=evaluator)
    (trace,), layout = plain_figure(figure)
    names, shares = trace["y"], trace["x"]  # the most important one last: at the top of the chart
    if not sum(shares):
        return None
    trace["marker"] = {"color": [MUTED] * (len(names) - 1) + [ACCENT]}
    trace["text"] = [percent(share) for share in shares]
    trace["hovertemplate"] = "%{y}: %{x:.1%}<extra></extra>"
    layout["xaxis"] = {"visible": False, "range": [0, 1.3 * max(shares)]}  # room for the numbers beside the bars
    layout["yaxis"] = {"type": "category", "showgrid": False}
    spoken = {inert(name): name for name in points.distributions}
    told = [(spoken[name], percent(share)) for name, share in zip(names, shares, strict=True)]
    lines = [Line([name, share]) for name, share in reversed(told)]
    table = Table("Importance of each setting", ["Setting", "Share"], lines, frozenset([1]))
    fact = f"{told[-1][0]} matters most: {told[-1][1]}."
    return Chart(
        "importances", fact, [trace], {**layout, "bargap": 0.4, "margin": {"t": 0, "b": 8}}, 16 + 38 * len(names), table
    )


def _importance(chart: Chart | None, trials: int) -> Section | None:
    if chart is None:
        return None
    lead = f"What sets the best quarter of {count(trials, 'trial')} apart from the others (PED-ANOVA)."
    if trials < FEW:
        lead += " From so few trials it is a hint, no more."
    return Section("importance", "Importance", lead, [chart])


def _slices(board: Leaderboard, points: Points, names: list[str]) -> Section:
    study = points.study(_direction(board))
    charts = [_slice(study, name, board, points) for name in names[:SLICES]]
    lead = f"{board.metric} against one setting at a time. A dot is a trial."
    if len(names) > SLICES:
        lead += f" {len(names) - SLICES} further settings are left out."
    return Section("slices", "Slices", lead, charts, wide=False)


def _slice(study: optuna.Study, name: str, board: Leaderboard, points: Points) -> Chart:
    figure = optuna.visualization.plot_slice(study, params=[name], target_name=board.metric)
    traces, layout = plain_figure(figure)
    best = points.params[0][name]
    labels = _labels(points.distributions[name], layout)
    for trace in traces:
        trace["x"] = [labels.get(value, value) for value in trace["x"]] if labels else trace["x"]
        trace["marker"] = {"color": MUTED, "size": 7, "opacity": 0.6}
        trace["hovertemplate"] = "%{x}: %{y:.4g}<extra></extra>"
    layout["margin"] = {"b": 28}
    layout["xaxis"]["exponentformat"] = "e"
    for axis in ("xaxis", "yaxis"):
        layout[axis].pop("title", None)  # the chart's heading and the section's first sentence say it
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": [inert(str(best)) if labels else best],
            "y": [points.trials[0].value],
            "marker": {"color": ACCENT, "size": 13, "symbol": "diamond"},
            "hovertemplate": f"the best, {inert(points.trials[0].trial)}: %{{y:.4g}}<extra></extra>",
            "showlegend": False,
        }
    )
    fact = f"The best trial has {name} {setting(best)}."
    return Chart(f"slice-{list(points.distributions).index(name)}", fact, traces, layout, 260, title=name)


def _labels(distribution: BaseDistribution, layout: dict[str, Any]) -> dict[str, str]:
    """Optuna writes a choice as Python does, in quotes: its label, and the one that a person reads. Empty for a
    range."""
    if not isinstance(distribution, CategoricalDistribution):
        return {}
    labels = {inert(repr(choice)): inert(str(choice)) for choice in distribution.choices}
    layout["xaxis"]["categoryarray"] = [labels.get(label, label) for label in layout["xaxis"]["categoryarray"]]
    return labels
