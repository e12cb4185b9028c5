from collections import Counter
from typing import Any

import pytest

from ftlib.report.answers import NO_LABEL, RARE, confusion, side_by_side
from ftlib.report.results import AnswerRow, Evaluation


def answer(row: int, contender: str, score: float | None, **more: Any) -> AnswerRow:
    scores = {"m": score}
    return AnswerRow.model_validate({"task": "t", "contender": contender, "row": row, "scores": scores, **more})


def pairs(*scores: tuple[float | None, float | None]) -> list[AnswerRow]:
    return [
        answer(row, who, score)
        for row, pair in enumerate(scores)
        for who, score in zip(("base", "winner"), pair, strict=True)
    ]


@pytest.mark.parametrize("better", ["max", "min"])
def test_a_row_got_better_or_worse_by_the_metric(better: str) -> None:
    evaluation = Evaluation.model_validate({"tasks": {"t": {"metrics": {"m": better}}}})
    (told,) = side_by_side(evaluation, pairs((0, 1), (1, 0), (1, 1), (None, 1)))
    assert [question.change for question in told.questions] == ["worse", "better", "same", "same"]
    assert [question.row for question in told.questions] == ([1, 0, 2, 3] if better == "max" else [0, 1, 2, 3])
    assert "1 of 4 rows got better, 1 worse, 2 stayed the same" in told.lead


def test_of_many_rows_each_change_has_its_part_and_the_rest_is_counted() -> None:
    many = pairs(*[(0, 1)] * 400, *[(1, 0)] * 20, *[(1, 1)] * 300)
    (told,) = side_by_side(Evaluation(), many)
    assert Counter(question.change for question in told.questions) == {"worse": 20, "better": 40, "same": 40}
    assert "100 rows are on this page; answers.jsonl has the other 620." in told.lead


def test_long_texts_are_cut_and_say_so() -> None:
    (told,) = side_by_side(Evaluation(), [answer(0, "base", 1, answer="x" * 1500, reference="y" * 1001)])
    assert told.questions[0].answers[0].text.endswith("x … (500 characters more)")
    assert told.questions[0].reference == "y" * 1000 + " … (1 characters more)"


def test_a_matrix_counts_right_labels_by_row() -> None:
    table = confusion("c", Counter({("a", "a"): 3, ("a", "b"): 1, ("b", NO_LABEL): 2}))
    assert table.columns == ["Right label", "a", "b", NO_LABEL]
    assert [line.cells for line in table.lines] == [["a", "3", "1", "0"], ["b", "0", "0", "2"]]


def test_rare_labels_are_one_row() -> None:
    table = confusion("c", Counter({(f"{number:02}", f"{number:02}"): 100 - number for number in range(25)}))
    assert [line.cells[0] for line in table.lines] == [f"{number:02}" for number in range(20)] + [RARE]
    assert table.lines[-1].cells[-1] == str(sum(100 - number for number in range(20, 25)))
