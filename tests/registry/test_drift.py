"""The numbers of drift: their ends, their known values, and that chance alone does not look like drift."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from ftlib.registry.drift import Texts, divergence, expectations, expected, measures, stability, unseen, words


def texts(*some: str) -> Texts:
    return Texts.together([Texts.of(len(text.split()), text) for text in some])


def test_words_are_those_of_any_script_without_placeholders():
    assert words("The CAT's naïve, 3 日本語! [email] [key]") == ["the", "cat", "s", "naïve", "3", "日本語"]


def test_divergence_is_0_for_the_same_and_1_for_nothing_in_common():
    assert divergence(texts("a b", "a"), texts("b a a")) == pytest.approx(0)
    assert divergence(texts("a b"), texts("c d")) == pytest.approx(1)
    assert divergence(texts("a b"), texts("a c")) == pytest.approx(0.5)
    one, other = texts("a a a b"), texts("a b b c")
    assert divergence(one, other) == pytest.approx(divergence(other, one))
    assert divergence(texts("a"), texts("")) == 1
    assert divergence(texts(""), texts("")) == 0


def test_divergence_is_the_mean_of_two_kullback_leiblers():
    one, other = Counter(a=5, b=3, c=2), Counter(a=1, c=4, d=5)
    p, q = ([counts[word] / 10 for word in "abcd"] for counts in (one, other))
    middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    by_hand = sum(x * math.log2(x / m) / 2 for shares in (p, q) for x, m in zip(shares, middle, strict=True) if x)
    assert divergence(Texts(Counter(), one), Texts(Counter(), other)) == pytest.approx(by_hand)


def test_unseen_words():
    assert unseen(texts("a b"), texts("a c c b")) == 0.5
    assert unseen(texts("a b"), texts("")) == 0


def test_stability_is_0_for_the_same_lengths_and_grows_with_the_shift():
    lengths = Counter(range(100))
    assert stability(lengths, lengths) == pytest.approx(0)
    shifts = [stability(lengths, Counter(range(start, start + 100))) for start in (2, 10, 40, 100)]
    assert shifts == sorted(shifts)
    assert shifts[0] < 0.1 < 1 < shifts[-1]
    assert stability(Counter({5: 100}), Counter({5: 100})) == pytest.approx(0)  # one length: one bin, and that is well
    assert stability(Counter({5: 100}), Counter({6: 100})) > 1


def test_quantiles():
    assert Texts(Counter(range(1, 101)), Counter()).quantiles() == {"p5": 5, "p50": 50, "p95": 95}
    assert Texts(Counter(), Counter()).quantiles() == {}


def drawn(count: int, vocabulary: int, seed: int, letter: str = "w") -> list[Texts]:
    """Texts of 5 to 15 words, those of small number being the likelier."""
    random_ = random.Random(seed)
    some = [[int(random_.paretovariate(0.8)) % vocabulary for _ in range(random_.randint(5, 15))] for _ in range(count)]
    return [Texts.of(len(numbers), " ".join(f"{letter}{number}" for number in numbers)) for numbers in some]


def test_chance_stays_below_what_is_expected_of_it_and_a_shift_does_not():
    reference, held_out = Texts.together(drawn(2000, 3000, 1)), drawn(400, 3000, 2)
    table = expectations(reference, held_out)
    for size in (30, 150):
        again = measures(reference, Texts.together(drawn(size, 3000, 3)))
        shifted = measures(
            reference, Texts.together(drawn(size, 3000, 3)[: size // 2] + drawn(size // 2, 3000, 4, "v"))
        )
        moved = Texts.together(
            [Texts(Counter([text.lengths.most_common()[0][0] * 3]), text.words) for text in drawn(size, 3000, 3)]
        )
        limits = expected(table, size)
        assert all(again[name] <= limits[name] + 0.02 for name in again), (size, again, limits)
        assert shifted["divergence"] > limits["divergence"]
        assert measures(reference, moved)["stability"] > limits["stability"] + 0.2


def test_the_fewer_texts_the_more_is_expected():
    table = expectations(Texts.together(drawn(500, 300, 1)), drawn(100, 300, 2))
    assert [row["divergence"] for row in table.values()] == sorted(
        (row["divergence"] for row in table.values()), reverse=True
    )
    assert expected(table, 3) == table[25]
    assert expected(table, 199) == table[100]
    assert expected(table, 10**6) == table[1600]
