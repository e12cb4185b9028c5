"""What a promotion asks of a comparison: both answers of each demand, in the metric's own words."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.evaluation.demands import Demand, Lead, NoLoss, WithinMargin


def task(difference: float, low: float | None, p: float, share: bool = True, units: int = 200) -> dict[str, Any]:
    compared = {"metric": "m", "ours": "winner", "theirs": "old", "difference": difference, "low": low, "high": None}
    return {
        "rows": 200,
        "units": units,
        "metrics": {"m": "max"},
        "shares": ["m"] if share else [],
        "contenders": {
            "winner": {"numbers": {"m": {"value": 0.5 + difference}}},
            "old": {"numbers": {"m": {"value": 0.5}}},
        },
        "comparisons": [{**compared, "p": p, "units": units, "test": "mcnemar"}],
    }


LEAD, LOSS, CHANCE = (0.1, 0.04, 0.01), (-0.1, -0.16, 0.01), (0.01, -0.03, 0.9)


@pytest.mark.parametrize(
    ("demand", "given", "met", "told"),
    [
        (Lead("t", "few_shot"), LEAD, True, "(p = 0.010 on 200 rows): a lead beyond chance"),
        (Lead("t", "few_shot"), CHANCE, False, "(p = 0.90 on 200 rows): no lead beyond chance"),
        (Lead("t", "few_shot"), LOSS, False, "(p = 0.010 on 200 rows): a loss beyond chance"),
        (NoLoss("t", "base"), CHANCE, True, "no loss beyond chance"),
        (NoLoss("t", "base"), LOSS, False, "a loss beyond chance"),
        (
            WithinMargin("t", "base", 0.04),
            CHANCE,
            True,
            "(at most 3 points worse, on 200 rows): the margin is 4 points",
        ),
        (
            WithinMargin("t", "base", 0.03),
            CHANCE,
            False,
            "(at most 3 points worse, on 200 rows): the margin is 3 points",
        ),
        (WithinMargin("t", "base", 0.02), (0.1, None, 1.0), False, "(200 rows are too few for an interval)"),
    ],
)
def test_a_demand_is_met_or_not(demand: Demand, given: tuple[float, float | None, float], met: bool, told: str) -> None:
    found, sentence = demand.look(task(*given), "old")
    assert (found, told in sentence) == (met, True), sentence


def test_numbers_and_names_are_those_of_the_metric_and_the_registry() -> None:
    _, sentence = WithinMargin("t", "registry:old@3", 0.5).look(task(1.0, -0.25, 0.3, share=False, units=20), "old")
    assert sentence == (
        "on t it has 1.5 and old@3 has 0.5 (at most 0.25 worse, on 20 groups of 200 rows): the margin is 0.5"
    )
