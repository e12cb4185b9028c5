"""GSM8K's number of an answer."""

from fractions import Fraction

import pytest

from ftlib.config.evaluation import Number
from ftlib.errors import DataError
from ftlib.evaluation.metrics import score
from ftlib.evaluation.number_metric import number_of
from ftlib.evaluation.task import Answer, Question

PARSES = [  # an answer, and the number that a reader of GSM8K sees as its result
    ("Natalia sold 48/2 = <<48/2=24>>24 clips in May. 48+24 = <<48+24=72>>72 altogether.\n#### 72", "72"),
    ("#### 1,234", "1234"),
    ("She earns 12 an hour.\n#### $10", "10"),
    ("####42", "42"),
    ("####\n7", "7"),
    ("#### -5", "-5"),
    ("#### 72.", "72"),
    ("#### 1/2", "0.5"),
    ("#### 18 dollars\n\nQuestion: Tom has 5 apples. How many?\n#### 5", "18"),  # runs on: the first one counts
    ("#### none", None),
    ("She has 5 apples and no price.\n#### none", None),
    ("#### Step 1: 3 + 4 = 7\n#### The answer is 42 eggs", "42"),  # a heading of Markdown
    ("#### Step 1\n16 - 3 = 13\n13 - 4 = 9", "9"),
    ("The answer is 18.", "18"),
    ("The answer is $18.00.", "18"),
    ("Janet makes $18 every day", "18"),
    ("16 - 3 - 4 = 9, and 9 * 2 = 18", "18"),
    ("3, 4, 5", "5"),
    ("about 1,234,567 people", "1234567"),
    ("Rs 12,34,567 in all", "1234567"),
    ("1\u202f234 euros", "1234"),
    ("**18**", "18"),
    ("\\boxed{18}", "18"),
    ("It costs \\$1{,}000", "1000"),
    ("\\(\\frac{3}{4}\\)", "0.75"),
    ("2\\frac{1}{2}", "2.5"),
    ("1/2", "0.5"),
    ("2 1/2 cups", "2.5"),
    ("-2 1/2", "-2.5"),
    ("2½ cups", "2.5"),
    ("half, i.e. ½", "0.5"),
    ("3 and 1/4 hours", "3.25"),
    ("10 20/4", "5"),
    ("1/0", None),
    ("60 / 2 = 30 miles", "30"),
    ("It was on 12/31/2024", "2024"),
    ("50%", "50"),
    ("50 percent of them", "50"),
    ("it drops by 12.5 %", "12.5"),
    ("-7", "-7"),
    ("\u22127 degrees", "-7"),
    ("-$5.25", "-5.25"),
    ("$-5", "-5"),
    ("pages 5\u201310", "10"),
    ("10-5", "5"),
    ("20 m2", "20"),
    ("20 km^2", "20"),
    ("USD18", "18"),
    (".5", "0.5"),
    ("so it is...5", "5"),
    ("1.5e3 grams", "1500"),
    ("none", None),
    ("", None),
    ("I do not know.", None),
]


@pytest.mark.parametrize(("answer", "number"), PARSES)
def test_it_is_the_published_parse(answer: str, number: str | None) -> None:
    assert number_of(answer) == (None if number is None else Fraction(number))


def test_there_are_fifty() -> None:
    assert len(dict(PARSES)) >= 50


def test_a_row_is_right_within_the_tolerance() -> None:
    questions = [Question((), right) for right in ("#### 3.14", "72", "1/3", "5")]
    answers = [Answer(said) for said in ("3.15", "it is 72", "0.333", "none")]
    assert score(Number(type="number"), questions, answers).rows.tolist() == [0, 1, 0, 0]
    assert score(Number(type="number", tolerance=0.01), questions, answers).rows.tolist() == [1, 1, 1, 0]


def test_a_reference_without_a_number_is_named() -> None:
    with pytest.raises(DataError, match="reference of row 2 has no number: 'none'"):
        score(Number(type="number"), [Question((), "1"), Question((), "none")], [Answer("1"), Answer("1")])


@pytest.mark.parametrize(
    "text", ["1,11" * 25000, "5" + " " * 100_000, "9/" * 50_000, "9" * 1_000_000, "#### " * 20_000]
)
def test_a_hostile_answer_takes_no_time(text: str) -> None:
    number_of(text)  # what is quadratic takes minutes
