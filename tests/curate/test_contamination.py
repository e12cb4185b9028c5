"""Words in a row that a benchmark and a training row have in common."""

from __future__ import annotations

from ftlib.curate.contamination import COMMON, contaminated, grams_of

QUESTION = "A train leaves the station at noon and travels sixty miles an hour for three hours to the coast"
SHORT = "Which planet of the sun has the most moons"


def found(texts: list[str], benchmark: list[str]) -> list[int]:
    return [int(place) for place in contaminated(texts, grams_of(benchmark))]


def test_thirteen_words_in_a_row_are_found_wherever_they_stand() -> None:
    words = QUESTION.split()
    texts = [f"Solve: {QUESTION}!", " ".join(words[:12]), f"x {' '.join(words[5:18]).upper()} y", "", "nothing"]
    assert found(texts, ["other words", QUESTION]) == [1, -1, 1, -1, -1]


def test_a_short_text_is_looked_for_whole() -> None:
    assert found([f"Tell me: {SHORT.lower()}?", " ".join(SHORT.split()[:8])], [SHORT, "too short"]) == [0, -1]


def test_no_gram_goes_from_one_text_into_the_next() -> None:
    words = QUESTION.split()
    assert found([" ".join(words[:9]), " ".join(words[9:])], [QUESTION]) == [-1, -1]


def test_what_many_texts_of_a_benchmark_have_is_its_form() -> None:
    form = "Choose the right one of the four answers below and write only its letter please now"
    benchmark = [f"{form} question{number}" for number in range(COMMON)]
    assert found([f"{form} mine"], benchmark) == [-1]
    assert found([f"{form} mine"], benchmark[1:]) == [0]


def test_nothing_is_found_in_nothing() -> None:
    assert found([], []) == []
    assert found(["a text"], []) == [-1]
