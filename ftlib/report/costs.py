"""What the run took: quality against cost with its Pareto front, and the bill."""

from __future__ import annotations

from typing import Any

import optuna

from ftlib.config import ScaleSection
from ftlib.report.settings import plain_figure
from ftlib.report.shapes import ACCENT, MUTED, Chart, Line, Section, Table
from ftlib.report.study import Points
from ftlib.report.words import count, duration, inert, number
from ftlib.run.cost import spent
from ftlib.run.directory import Run
from ftlib.run.leaderboard import Leaderboard, Row


def quality_against_cost(board: Leaderboard, points: Points) -> Section | None:
    """The section; None where fewer than two trials have a value."""
    if len(points.trials) < 2:
        return None
    priced = board.cost is not None
    costs = [float((row.cost or 0.0) if priced else row.seconds) for row in points.trials]
    study = points.costs("minimize" if board.mode == "min" else "maximize", costs)
    axis = "cost" if priced else "seconds of training"
    figure = optuna.visualization.plot_pareto_front(study, target_names=[axis, board.metric])
    traces, layout = plain_figure(figure)
    names = {trial.number: trial.user_attrs["trial"] for trial in study.get_trials(deepcopy=False)}
    front = sorted(trial.number for trial in study.best_trials)
    others = [number for number in names if number not in set(front)]
    for trace, numbers, colour in zip(traces, (others, front), (MUTED, ACCENT), strict=True):
        trace["marker"] = {
            "color": colour,
            "size": 8 if colour == MUTED else 12,
            "opacity": 0.6 if colour == MUTED else 1,
        }
        trace["text"] = [inert(names[number]) for number in numbers]
        trace["hovertemplate"] = "trial %{text}: %{y:.4g} for %{x:.4g}<extra></extra>"
    traces.insert(0, _steps(points, costs, front))
    cheapest_first = sorted(front, key=lambda place: costs[place])
    lead = "On the line no trial is both cheaper and better."
    fact = f"{count(len(front), 'trial')} of {len(names):,} on the front; the best is {points.trials[0].trial}."
    chart = Chart(
        "pareto",
        fact,
        traces,
        layout,
        360,
        _front([(costs[at], points.trials[at]) for at in cheapest_first], board, priced),
    )
    return Section("pareto", "Quality against cost" if priced else "Quality against time", lead, [chart])


def _steps(points: Points, costs: list[float], front: list[int]) -> dict[str, Any]:
    """The line of the front: what can be had for at most so much."""
    ordered = sorted((costs[at], points.trials[at].value) for at in front)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [cost for cost, _ in ordered],
        "y": [value for _, value in ordered],
        "line": {"color": ACCENT, "width": 1.5, "shape": "hv"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _front(on_front: list[tuple[float, Row]], board: Leaderboard, priced: bool) -> Table:
    lines = [Line([row.trial, number(cost), number(row.value)]) for cost, row in on_front]
    columns = ["Trial", "Cost" if priced else "Seconds", board.metric]
    return Table("The Pareto front, cheapest first", columns, lines, frozenset([1, 2]))


def bill(run: Run, board: Leaderboard) -> Section | None:
    """Hours and their price; None where nothing ran."""
    scale = ScaleSection.model_validate(run.resolved.get("experiment", {}).get("scale", {}))
    taken = spent(run, scale.num_workers)
    if not taken.worker_seconds:
        return None
    failed = sum(taken.by_trial.get(row.trial, 0.0) for row in board.rows if row.state == "failed")
    facts = [
        ("The sweep took", duration(3600 * taken.hours)),
        ("Workers were busy for", duration(taken.worker_seconds)),
        ("Trials took of it", duration(sum(taken.by_trial.values()))),
    ]
    if board.best is not None:
        facts.append(("The best trial took", duration(taken.by_trial.get(board.best.trial, 0.0))))
    if failed:
        facts.append(("Failed trials took", duration(failed)))
    if board.cost is not None:
        facts.append(("Cost in all", number(board.cost)))
        facts.append(("An hour of a worker costs", number(scale.worker_price)))
        if board.best is not None:
            facts.append(("The best trial's part", number(board.best.cost)))
    return Section("costs", "Costs", facts=facts)
