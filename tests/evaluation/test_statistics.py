"""Intervals cover, tests have their size, ties are ties and leads are leads; numbers equal scipy's and sacrebleu's."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from scipy.stats import binomtest, bootstrap

from ftlib.config.evaluation import Bleu
from ftlib.evaluation.metrics import score
from ftlib.evaluation.resampling import RESAMPLES, Units
from ftlib.evaluation.score import Score, mean_of, share_of
from ftlib.evaluation.statistics import compare, interval, kappa, ties, wilson, win_rate
from ftlib.evaluation.task import Answer, Question

MAX, MIN = (SimpleNamespace(name="x", better=better) for better in ("max", "min"))
Floats = np.ndarray[Any, Any]


def mean(values: Sequence[float] | Floats, metric: Any = MAX) -> Score:
    return mean_of(metric, list(values))


def share(rows: Sequence[float] | Floats) -> Score:
    return share_of(MAX, [bool(row) for row in rows])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples, for a thousand simulations."""
    monkeypatch.setattr("ftlib.evaluation.resampling.RESAMPLES", 600)


@pytest.mark.parametrize(("p", "rows"), [(0.5, 100), (0.83, 200), (0.95, 200)])
def test_intervals_of_shares_cover(p: float, rows: int) -> None:
    right = np.random.default_rng(0).binomial(rows, p, size=1000)
    found = [wilson(int(number), rows) for number in right]
    assert 0.93 <= np.mean([one.low <= p <= one.high for one in found]) <= 0.97


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["token_f1", "skewed", "groups"])
def test_intervals_of_resamples_cover(kind: str) -> None:
    rng, covered = np.random.default_rng(3), []
    for _ in range(1000):
        if kind == "groups":  # 40 documents of 3 rows, alike within
            values, true = np.repeat(rng.normal(size=40), 3) + 0.5 * rng.normal(size=120), 0.0
        elif kind == "token_f1":  # much of it near 0 and near 1
            values, true = rng.beta(0.5, 0.3, size=50), 0.625
        else:
            values, true = rng.gamma(2, size=50), 2.0
        found = interval(mean(values), [str(row // 3) for row in range(120)] if kind == "groups" else None)
        assert found is not None
        covered.append(found.low <= true <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_bootstrap_is_scipys_bca() -> None:
    """Ours is a little wider: scipy's does not know that 40 rows spread less than what they are drawn from."""
    rows = np.random.default_rng(4).lognormal(sigma=1.2, size=40)
    found = interval(mean(rows))
    theirs = bootstrap((rows,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    low, high = theirs.confidence_interval
    assert found is not None
    assert (found.low + found.high) / 2 == pytest.approx((low + high) / 2, abs=0.25 * theirs.standard_error)
    assert 1 < (found.high - found.low) / (high - low) < 1.15


def test_wilson_is_the_published_interval() -> None:
    """167 of 200, from Wilson's formula by hand."""
    found = interval(share([1] * 167 + [0] * 33))
    assert found is not None
    assert (round(found.low, 3), round(found.high, 3)) == (0.777, 0.88)
    assert wilson(0, 10).low == 0
    assert wilson(10, 10).high == 1


@pytest.mark.parametrize(("gained", "lost", "same"), [(0, 0, 9), (5, 0, 3), (1, 6, 20), (12, 30, 0), (40, 40, 40)])
def test_mcnemar_is_scipys(gained: int, lost: int, same: int) -> None:
    ours, theirs = share([1] * gained + [0] * lost + [1] * same), share([0] * gained + [1] * lost + [1] * same)
    found = compare(ours, theirs)
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found.p == pytest.approx(expected)
    assert found.difference == pytest.approx((gained - lost) / (gained + lost + same))
    assert (found.test, found.units) == ("mcnemar", gained + lost + same)
    assert found.low is not None
    assert found.low <= found.difference <= (found.high or 0)
    other = compare(theirs, ours)
    assert (other.p, other.low, other.high) == pytest.approx((expected, -(found.high or 0), -found.low))


def test_the_interval_of_paired_shares_covers() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(100, [0.15, 0.05, 0.8], size=1000)
    covered = []
    for gained, lost, same in drawn:
        found = compare(share([1] * gained + [0] * (lost + same)), share([0] * gained + [1] * lost + [0] * same))
        covered.append((found.low or 0) <= 0.1 <= (found.high or 0))
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("units", [5, 20, 100])
def test_a_p_below_5_percent_comes_in_5_of_100(units: int) -> None:
    rng, found = np.random.default_rng(1), []
    for _ in range(1000):
        easy = rng.normal(size=units)
        found.append(compare(mean(easy + rng.normal(size=units)), mean(easy + rng.normal(size=units))).p < 0.05)
    assert np.mean(found) <= 0.065


def corpora() -> tuple[list[str], list[str], list[str]]:
    """References, and the answers of two systems, the second a little better."""
    rng, words = np.random.default_rng(5), [f"w{word}" for word in range(16)]
    right = [list(rng.choice(words, size=12)) for _ in range(60)]

    def worse(share: float) -> list[str]:
        return [" ".join(rng.choice(words) if rng.random() < share else word for word in row) for row in right]

    return [" ".join(row) for row in right], worse(0.3), worse(0.27)


def test_the_paired_bootstrap_is_sacrebleus(monkeypatch: pytest.MonkeyPatch) -> None:
    """sacrebleu's p is another one (of |difference|, one-sided), so it is computed here from our resamples."""
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    right, theirs, ours = corpora()
    _, results = PairedTest([("a", theirs), ("b", ours)], {"BLEU": BLEU(force=True)}, [right], "bs", 4000)()
    expected = results["BLEU"][1]
    section, questions = Bleu(type="bleu"), [Question((), text) for text in right]
    mine, other = (score(section, questions, list(map(Answer, said))) for said in (ours, theirs))
    drawn = Units.of([mine, other], None).resampled(0)
    differences = np.abs(drawn[0] - drawn[1])
    p = (np.sum(differences - differences.mean() > abs(mine.number() - other.number())) + 1) / (RESAMPLES + 1)
    assert mine.number() == pytest.approx(expected.score)
    assert drawn[0].mean() == pytest.approx(expected.mean, abs=0.25)
    low, high = np.quantile(drawn[0], [0.025, 0.975])
    assert (high - low) / 2 == pytest.approx(expected.ci, abs=0.35)
    assert p == pytest.approx(expected.p_value, abs=4 * math.sqrt(expected.p_value / 4000))
    found = compare(mine, other)
    assert (found.test, found.units) == ("bootstrap", 60)
    _, results = PairedTest([("a", theirs), ("b", ours)], {"BLEU": BLEU(force=True)}, [right], "ar", 4000)()
    assert found.p == pytest.approx(results["BLEU"][1].p_value, abs=0.03)  # their two-sided test


def test_rows_of_a_group_count_as_one() -> None:
    """Each row ten times is no more evidence than once."""
    rng = np.random.default_rng(0)
    score = mean(rng.random(30))
    assert Units.of([score], [str(row // 4) for row in range(30)]).numbers[0] == pytest.approx(score.number())
    ours, theirs = rng.random(30), rng.random(30)
    groups = [str(row // 10) for row in range(300)]
    once, grouped = compare(mean(ours), mean(theirs)), compare(mean(ours.repeat(10)), mean(theirs.repeat(10)), groups)
    assert (grouped.units, grouped.p, grouped.low) == (30, pytest.approx(once.p), pytest.approx(once.low))
    assert compare(mean(ours), mean(theirs), [None] * 30) == once
    shares = compare(share(ours.repeat(10) > 0.3), share(theirs.repeat(10) > 0.5), groups)
    assert (shares.test, shares.units) == ("bootstrap", 30)


def test_lower_is_better_for_some() -> None:
    rows = np.random.default_rng(0).random(50)
    found = compare(mean(rows, MIN), mean(rows + 1, MIN))
    assert found.difference == pytest.approx(1)
    assert found.p == 2.0**-49  # each unit differs by the same: what signs say


def test_identical_rows_are_no_difference() -> None:
    rows = np.random.default_rng(0).random(50)
    assert compare(mean(rows), mean(rows)).p == 1
    found = compare(share(rows > 0.5), share(rows > 0.5))
    assert found.p == 1
    assert found.same_within(0.06)
    assert not found.same_within(0.05)  # 50 rows cannot say that


def test_few_units_say_little() -> None:
    assert interval(mean([0.5])) is None
    assert interval(mean([0.5, 0.5])) is None
    wide = interval(mean([0.4, 0.6]))
    assert wide is not None
    assert wide.high - wide.low > 1
    assert compare(mean([1.0]), mean([0.0])).p == 1
    assert not compare(mean([1.0]), mean([0.0])).same_within(1)
    assert compare(mean([1.0, 1.1, 0.9]), mean([0.0, 0.0, 0.0])).p >= 0.25
    assert compare(share([1, 1, 1]), share([0, 0, 0])).p == 0.25
    two = interval(share([1] * 20), ["a"] * 10 + ["b"] * 10)
    assert two is not None
    assert two.low < 0.4


def test_rows_without_a_value_are_left_out_of_both() -> None:
    nan = math.nan
    found = compare(mean([1, nan, 0.5, 1, nan, 0.2]), mean([0, 1, nan, 0, nan, 0.1]))
    assert found.units == 3
    assert found.difference == pytest.approx((1 + 1 + 0.1) / 3)
    assert compare(mean([nan]), mean([1.0])).p == 1
    assert interval(mean([nan, nan])) is None


def sweep(rng: np.random.Generator, kind: str, leads: Sequence[float]) -> dict[str, Score]:
    """Trials on the same 200 rows, of which some are hard for all."""
    hard = rng.normal(size=200)
    rows = {str(trial): hard + 0.7 * rng.normal(size=200) + lead for trial, lead in enumerate(leads)}
    return {name: share(row > 0) if kind == "share" else mean(1 / (1 + np.exp(-2 * row))) for name, row in rows.items()}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["share", "mean"])
@pytest.mark.parametrize(
    ("leads", "expected"),
    [
        ([0, 0], {"0", "1"}),
        ([0] * 6, set("012345")),
        ([0, 0, -2, -2.5, -3], {"0", "1"}),
        ([0.6, 0, 0, -0.5], {"0"}),
    ],
    ids=["two tie", "six tie", "two tie before others", "a lead"],
)
def test_planted_ties_and_leads_are_found(kind: str, leads: Sequence[float], expected: set[str]) -> None:
    rng = np.random.default_rng(2)
    assert sum(set(ties(sweep(rng, kind, leads))) == expected for _ in range(100)) >= 95


def test_ties_come_best_first_and_few_rows_make_no_lead() -> None:
    assert ties({"a": share([0, 0, 1]), "b": share([1, 1, 1]), "c": mean([math.nan] * 3)}) == ["b", "a"]
    seven_of_100 = {"a": share([1] * 57 + [0] * 43), "b": share([1] * 50 + [0] * 50)}
    assert ties(seven_of_100) == ["a", "b"]  # p is 0.016, and the better one was chosen after the fact
    assert ties({"a": mean([1.0])}) == ["a"]
    assert ties({}) == []
    same = np.random.default_rng(0).random(40)
    assert ties({"a": mean(same), "b": mean(same)}) == ["a", "b"]
    assert ties({"a": mean(same), "b": mean(same + 0.1)}) == ["b"]
    assert ties({"a": mean(same, MIN), "b": mean(same + 0.1, MIN)}) == ["a"]


def test_kappa_is_cohens() -> None:
    """The worked example of two readers of 50 proposals: 0.4."""
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(a, b) == pytest.approx(0.4)
    assert kappa(a, a) == 1
    assert math.isnan(kappa(["x"], ["x"]))
    assert math.isnan(kappa([], []))


def test_a_win_rate_counts_ties_as_halves() -> None:
    rate, around = win_rate(6, 2, 2)
    assert rate == pytest.approx(0.7)
    assert (around.low, around.high) == (wilson(7, 10).low, wilson(7, 10).high)
    rate, around = win_rate(0, 0)
    assert math.isnan(rate)
    assert (around.low, around.high) == (0, 1)
