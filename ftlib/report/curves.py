"""Learning curves: the objective and the training loss over the tokens, the best trial bold, the base as a line.

Optuna's plot of intermediate values knows neither a base nor a best, and draws each trial as a curve of its own: a
thousand of them are too heavy for a page.
"""

from __future__ import annotations

from typing import Any

from ftlib.report.shapes import ACCENT, MUTED, TEXT, Chart, Line, Section, Table
from ftlib.report.words import count, inert, number
from ftlib.run.directory import Run
from ftlib.run.layout import BASE
from ftlib.run.leaderboard import Leaderboard

POINTS = 200  # of a curve
ALONE = 50  # curves that can be told apart; the others are one grey trace
POINTS_OF_OTHERS = 10_000  # of that trace
DOTTED = 12  # a curve of so few points shows each
MAGNITUDES = 20  # from this ratio of the largest to the smallest value on, the axis is logarithmic

Curve = tuple[str, list[float], list[float]]  # a trial, its tokens (or steps), its values


def learning_curves(run: Run, board: Leaderboard) -> Section | None:
    """The section, or None where no trial has two points to draw a line through."""
    base = board.base.value if board.base else None
    charts = [
        _chart(run, board, "objective", board.metric, base),
        _chart(run, board, "train-loss", "loss", None),
    ]
    drawn = [chart for chart in charts if chart]
    return Section("curves", "Learning curves", charts=drawn) if drawn else None


def _chart(run: Run, board: Leaderboard, name: str, key: str, base: float | None) -> Chart | None:
    axis, curves = curves_of(run, board, key)
    if not any(len(values) > 1 for _, _, values in curves):
        return None
    title = "Training loss" if key == "loss" else key
    values = [value for _, _, of_trial in curves for value in of_trial] + ([] if base is None else [base])
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": axis}, "rangemode": "tozero"},
        "yaxis": scale(values),
        "showlegend": True,
    }
    best = board.best.trial if board.best else None
    traces = [*_others(curves[ALONE:]), *_named(curves[:ALONE], best)]
    if base is not None:
        traces.append(_base_line(base, [at for _, places, _ in curves for at in places]))
    return Chart(name, _fact(curves, key, best, base), traces, layout, table=_table(curves, key), title=title)


def curves_of(run: Run, board: Leaderboard, key: str) -> tuple[str, list[Curve]]:
    """The trials' curves, best first, over tokens; over steps where no tokens are counted."""
    rows = {row.trial: run.trial(row.trial).evaluations(key) for row in board.rows if row.trial != BASE}
    axis = "tokens" if any(row.get("tokens") for of_trial in rows.values() for row in of_trial) else "step"
    curves = [
        (trial, [float(row.get(axis, 0)) for row in of_trial], [float(row[key]) for row in of_trial])
        for trial, of_trial in rows.items()
        if of_trial
    ]
    return ("tokens trained on" if axis == "tokens" else "optimizer steps"), curves


def scale(values: list[float]) -> dict[str, Any]:
    """The axis of these values, at least one: logarithmic where they are of many magnitudes."""
    if min(values) > 0 and max(values) / min(values) > MAGNITUDES:
        return {"type": "log", "dtick": "D2"}  # 1, 2 and 5 of each magnitude
    return {}


def thinned(places: list[float], values: list[float], most: int) -> tuple[list[float], list[float]]:
    """At most `most` points of a curve, its first and its last among them, with four digits."""
    last = len(places) - 1
    kept = sorted({round(point * last / (most - 1)) for point in range(most)}) if last >= most else range(last + 1)
    return [places[at] for at in kept], [float(f"{values[at]:.4g}") for at in kept]


def _named(curves: list[Curve], best: str | None) -> list[dict[str, Any]]:
    """A trace a trial, the best one last, so that it is drawn over the others."""
    traces = []
    for trial, places, values in sorted(curves, key=lambda curve: curve[0] == best):
        x, y = thinned(places, values, POINTS)
        is_best = trial == best
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(x) <= DOTTED else "lines",
                "x": x,
                "y": y,
                "name": f"{inert(trial)}, the best" if is_best else inert(trial),
                "line": {"color": ACCENT if is_best else MUTED, "width": 3 if is_best else 1.2},
                "marker": {"size": 7 if is_best else 4},
                "opacity": 1 if is_best else 0.55,
                "showlegend": is_best,
                "hovertemplate": f"trial {inert(trial)}: %{{y:.4g}} at %{{x:,}}<extra></extra>",
            }
        )
    return traces


def _others(curves: list[Curve]) -> list[dict[str, Any]]:
    """All further curves as one trace: gaps stand between them."""
    if not curves:
        return []
    most = max(2, POINTS_OF_OTHERS // len(curves))
    x: list[float | None] = []
    y: list[float | None] = []
    for _, places, values in curves:
        some = thinned(places, values, most)
        x += [*some[0], None]
        y += [*some[1], None]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": y,
            "name": count(len(curves), "other trial"),
            "line": {"color": MUTED, "width": 1},
            "opacity": 0.35,
            "hoverinfo": "skip",
        }
    ]


def _base_line(base: float, places: list[float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [0, max(places)],
        "y": [base, base],
        "name": "the base",
        "line": {"color": TEXT, "width": 1.5, "dash": "dot"},
        "hovertemplate": "the base: %{y:.4g}<extra></extra>",
    }


def _fact(curves: list[Curve], key: str, best: str | None, base: float | None) -> str:
    of_best = next((values for trial, _, values in curves if trial == best), None)
    told = "training loss" if key == "loss" else key
    sentence = f"The {told} of {count(len(curves), 'trial')}."
    if of_best is not None:
        sentence += f" Trial {best} goes from {number(of_best[0])} to {number(of_best[-1])}."
    return sentence + (f" The base has {number(base)}." if base is not None else "")


def _table(curves: list[Curve], key: str) -> Table:
    told = "Training loss" if key == "loss" else key
    lines = [
        Line([trial, number(values[0]), number(min(values)), number(max(values)), number(values[-1]), str(len(values))])
        for trial, _, values in curves[:ALONE]
    ]
    columns = ["Trial", "First", "Lowest", "Highest", "Last", "Points"]
    return Table(f"{told} of {_first(len(curves))}", columns, lines, frozenset(range(1, 6)))


def _first(curves: int) -> str:
    return count(curves, "trial") if curves <= ALONE else f"the best {ALONE} of {curves:,} trials"
