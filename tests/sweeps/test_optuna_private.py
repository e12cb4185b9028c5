"""The names that Optuna and Ray's OptunaSearch keep to themselves are there, and do what they are used for."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from ftlib.sweeps.optuna_private import OpenSearch, holds


def test_what_a_distribution_holds() -> None:
    assert holds(CategoricalDistribution(["a", 1]), "a")
    assert not holds(CategoricalDistribution(["a", 1]), "b")
    assert holds(FloatDistribution(1e-4, 1e-2, log=True), 1e-3)
    assert not holds(FloatDistribution(1e-4, 1e-2), 1.0)
    assert holds(IntDistribution(4, 8), 8)
    assert not holds(IntDistribution(4, 8), 9)


def test_a_point_that_is_in_the_queue_leaves_it_and_another_is_new() -> None:
    space = {"adapter.r": IntDistribution(1, 64), "learning_rate": FloatDistribution(1e-5, 1e-1)}
    points = [{"adapter.r": 4, "learning_rate": 0.01}, {"adapter.r": 8, "learning_rate": 0.02}]
    search = OpenSearch(space=space, metric="loss", mode="min", points_to_evaluate=points)
    assert search.take_over("a", points[1], queued=True).params == points[1]
    assert search.take_over("b", {"adapter.r": 2, "learning_rate": 0.03}, queued=True).params["adapter.r"] == 2
    assert search.take_over("c", points[0], queued=False).params == points[0]  # still in the queue, as it was asked
    assert set(search.asked) == {"a", "b", "c"}
    states = [trial.state for trial in search.study.trials]
    assert sorted(states) == [TrialState.RUNNING] * 3 + [TrialState.WAITING]
    assert search.suggest("d") == points[0]
    assert search.completed == set()
