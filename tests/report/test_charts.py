"""Curves, the study behind Optuna's plots, and the front: what is drawn is what the run says."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from ftlib.report.costs import quality_against_cost
from ftlib.report.curves import learning_curves, thinned
from ftlib.report.settings import settings
from ftlib.report.study import points_of
from ftlib.run.directory import Run
from ftlib.run.leaderboard import leaderboard
from tests.report.runs import SPACE, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"), 70, seed=3)


@pytest.mark.parametrize("most", [2, 7, 200])
def test_a_thinned_curve_keeps_its_ends(most: int) -> None:
    places = [float(place) for place in range(1000)]
    x, y = thinned(places, [1 / (place + 1) for place in places], most)
    assert (x[0], x[-1], len(x)) == (0, 999, most)
    assert y[-1] == 0.001
    assert x == sorted(set(x))


def test_the_best_curve_is_drawn_last_before_the_base_and_the_rest_is_one_trace(run: Run) -> None:
    board = leaderboard(run)
    section = learning_curves(run, board)
    assert section is not None
    others, *alone, base = section.charts[0].traces
    assert others["name"] == "19 other trials"  # 70, less the one that failed, less 50
    assert [trace["showlegend"] for trace in alone] == [False] * 49 + [True]
    assert board.best is not None
    assert alone[-1]["name"] == f"{board.best.trial}, the best"
    assert min(alone[-1]["y"]) == pytest.approx(board.best.value, rel=1e-3)
    assert base["y"] == [2.5, 2.5]


def test_the_study_has_the_space_of_the_sweep(run: Run) -> None:
    points = points_of(leaderboard(run), SPACE)
    assert len(points.trials) == 69
    assert points.distributions["r"] == CategoricalDistribution([4, 8, 16])
    rate = points.distributions["learning_rate"]
    assert isinstance(rate, FloatDistribution)
    assert rate.log


def test_the_setting_that_decides_is_the_most_important(run: Run) -> None:
    board = leaderboard(run)
    sections = {section.name: section for section in settings(board, points_of(board, SPACE))}
    table = sections["importance"].charts[0].table
    assert table is not None
    assert table.lines[0].cells[0] == "learning_rate"
    assert board.best is not None
    *others, best = sections["parallel"].charts[0].traces
    assert dict(best["customdata"])["learning_rate"] == f"{board.best.params['train.learning_rate']:.3g}"
    assert best["line"]["width"] > max(trace["line"]["width"] for trace in others)
    assert sections["slices"].charts[0].title == "learning_rate"


def test_the_front_is_that_of_the_leaderboard(run: Run) -> None:
    board = leaderboard(run)
    section = quality_against_cost(board, points_of(board, SPACE))
    assert section is not None
    table = section.charts[0].table
    assert table is not None
    assert {line.cells[0] for line in table.lines} >= {row.trial for row in board.rows if row.pareto}
    values = [float(line.cells[2]) for line in table.lines]
    assert values == sorted(values, reverse=True)  # the more it costs, the better it is


def test_nothing_is_compared_where_nothing_differs(tmp_path: Path) -> None:
    board = leaderboard(make_run(tmp_path, 1))
    assert settings(board, points_of(board, SPACE)) == []
