"""Each metric says what the library or the paper says that defines it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import sacrebleu
from pydantic import TypeAdapter
from rouge_score.rouge_scorer import RougeScorer

from ftlib.config.evaluation import MetricSection
from ftlib.errors import ConfigError, DataError, InputError
from ftlib.evaluation import metrics as module
from ftlib.evaluation.metrics import METRICS, check, score, why_not_there
from ftlib.evaluation.score import Score
from ftlib.evaluation.task import Answer, Question

SECTION: TypeAdapter[Any] = TypeAdapter(MetricSection)
RIGHT = ["the cat sat on the mat", "a dog barks", "rain falls on the old roof today", "yes", "it is what it is"]
SAID = ["the cat sat on a mat", "the dog barks loudly", "rain falls on the roof", "no", "it is what it is"]
SAMPLE = np.array([0, 0, 2, 4, 1, 1, 3])


def scored(type: str, right: Sequence[str], said: Sequence[str], **keys: Any) -> Score:
    section = SECTION.validate_python({"type": type, **keys})
    return score(
        section, [Question(({"role": "user", "content": "?"},), text) for text in right], list(map(Answer, said))
    )


def test_every_section_has_an_implementation() -> None:
    union = MetricSection.__origin__  # type: ignore[attr-defined]
    assert set(METRICS) == set(union.__args__)


@pytest.mark.parametrize(
    ("type", "keys", "right", "said", "rows"),
    [
        ("exact_match", {}, ["a b", "a", "a"], [" a\n b ", "A", "a."], [1, 0, 0]),
        ("exact_match", {"normalize": "none"}, ["a", "a"], ["a", "a "], [1, 0]),
        ("exact_match", {"normalize": "squad"}, ["The cat!", "a"], ["cat", "b"], [1, 0]),
        ("contains", {}, ["Paris", "Paris", ""], ["It is PARIS.", "Pari", "x"], [1, 0, 0]),
        ("regex", {"pattern": r"^\d+$"}, ["", ""], ["42", "x42"], [1, 0]),
        ("regex", {"pattern": r"label: (\w+)"}, ["dog", "dog", "dog"], ["label: dog", "label: cat", "dog"], [1, 0, 0]),
        ("regex", {"pattern": "z"}, ["", ""], ["a" * 9_999 + "z", "a" * 10_000 + "z"], [1, 0]),
        ("token_f1", {}, ["the black cat", "x", ""], ["a black dog", "y", ""], [0.5, 0, 1]),
        ("accuracy", {}, ["Positive", "negative", "positive"], ["positive.", "**Negative**", "positively"], [1, 1, 0]),
        ("accuracy", {"labels": ["no", "no idea"]}, ["no idea", "no"], ["No idea!", "nothing"], [1, 0]),
        ("accuracy", {}, ["1", "12", "好"], ["12", "12", "好的"], [0, 1, 1]),
        ("valid_json", {}, [""] * 4, ['{"a": 1}', "[1]", '{"a": 1', '```\n{"a": 1}\n```'], [1, 0, 0, 0]),
        ("valid_json", {"json_schema": {"required": ["a"]}}, [""] * 2, ['{"a": 1}', '{"b": 1}'], [1, 0]),
        ("json_f1", {}, ['{"a": 1, "b": [1, 2]}'] * 3, ['{"a": 1.0, "b": [1, 3]}', "no", '{"a": true}'], [2 / 3, 0, 0]),
        ("json_f1", {"json_schema": {"type": "object"}}, ["[1]", "{}"], ["[1]", "{}"], [0, 1]),
    ],
)  # fmt: skip
def test_rows_are_worth(type: str, keys: Any, right: list[str], said: list[str], rows: list[float]) -> None:
    found = scored(type, right, said, **keys)
    assert found.rows.tolist() == pytest.approx(rows)
    assert found.number() == pytest.approx(np.mean(rows))
    assert found.number(np.array([0, 0, 1])) == pytest.approx(np.mean([rows[0], rows[0], rows[1]]))
    assert found.is_share == (type not in ("token_f1", "json_f1"))


def test_corpus_numbers_are_those_of_the_libraries_for_every_sample() -> None:
    for rows in (np.arange(len(RIGHT)), SAMPLE):
        said, right = [SAID[row] for row in rows], [RIGHT[row] for row in rows]
        expected = {
            "bleu": sacrebleu.corpus_bleu(said, [right]).score,
            "chrf": sacrebleu.corpus_chrf(said, [right]).score,
            "wer": jiwer.wer(right, said),
        }
        for type, number in expected.items():
            assert scored(type, RIGHT, SAID).number(rows) == pytest.approx(number), type
    assert scored("bleu", RIGHT, SAID).rows[0] == pytest.approx(sacrebleu.sentence_bleu(SAID[0], [RIGHT[0]]).score)
    assert scored("chrf", RIGHT, SAID).rows[0] == pytest.approx(sacrebleu.sentence_chrf(SAID[0], [RIGHT[0]]).score)
    assert scored("wer", RIGHT, SAID).rows.tolist() == pytest.approx(list(map(jiwer.wer, RIGHT, SAID)))
    assert scored("wer", ["", ""], ["a b", ""]).number() == jiwer.wer(["", ""], ["a b", ""]) == 2


@pytest.mark.parametrize("variant", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_rouge_is_that_of_rouge_score(variant: str) -> None:
    scorer = RougeScorer([variant])
    expected = [scorer.score(right, said)[variant].fmeasure for right, said in zip(RIGHT, SAID, strict=True)]
    assert scored("rouge", RIGHT, SAID, variant=variant).rows.tolist() == pytest.approx(expected)


def test_macro_f1_is_scikit_learns() -> None:
    """By its definition: the package is no dependency. An answer that is no label is missing for its label."""
    right = ["a", "a", "b", "b", "c", "a"]
    said = ["a", "b", "b", "?", "a", "A!"]
    f1 = {"a": 2 * 2 / (3 + 3), "b": 2 * 1 / (2 + 2), "c": 0.0}  # 2 matched / (said + right)
    found = scored("f1_macro", right, said)
    assert found.number() == pytest.approx(sum(f1.values()) / 3)
    assert found.number(np.array([0, 1])) == pytest.approx((2 / 3 + 0) / 2)  # a: once of twice; b: said, and wrong
    assert found.rows.tolist() == [1, 0, 1, 0, 0, 1]


def test_perplexity_is_over_all_tokens() -> None:
    questions, section = [Question((), "x")] * 3, SECTION.validate_python({"type": "perplexity"})
    found = score(
        section, questions, [Answer("", nll=2.0, nll_tokens=1), Answer("", nll=1.0, nll_tokens=3), Answer("")]
    )
    assert found.number() == pytest.approx(np.exp(3 / 4))
    assert found.rows[:2].tolist() == pytest.approx([np.exp(2), np.exp(1 / 3)])
    assert found.valued.tolist() == [True, True, False]
    assert found.sign == -1
    with pytest.raises(InputError, match="needs the model itself"):
        score(section, questions[:1], [Answer("x")])


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, "[" * 60 + "]" * 60, '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}',
        '{"a": ' + "9" * 5000 + "}", '{"a": "' + "x" * 100_000 + '"}', "", '{"a": "\x00"}',
    ],
    ids=range(10),
)  # fmt: skip
def test_hostile_json_is_none(text: str) -> None:
    assert scored("valid_json", [""], [text]).number() == 0
    assert scored("json_f1", ['{"a": 1}'], [text]).number() == 0


def test_an_endless_pattern_ends_and_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlib.evaluation.text_metrics.PATIENCE", 0.1)
    found = scored("regex", ["", ""], ["a" * 5_000 + "!", "aaa"], pattern=r"^(?:a|aa)+$")
    assert found.rows.tolist() == [0, 1]
    assert found.warning is not None
    assert "takes too long on 1 answer," in found.warning


def test_a_function_of_yours(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def short(answer, reference, prompt):\n"
        "    return len(answer) <= len(reference) and prompt[0]['role'] == 'user'\n"
        "def broken(answer, reference, prompt):\n    return 1 / (answer != 'b')\n"
        "def texts(answer, reference, prompt):\n    return '0.5'\n"
    )
    found = scored("function", ["ab", "a"], ["a", "ab"], function=f"{file}:short", mode="min")
    assert (found.name, found.better, found.rows.tolist()) == ("short", "min", [1, 0])
    for function, reason in (
        (f"{file}:shrt", "has no function 'shrt'. Did you mean 'short'?"),
        (f"{tmp_path}/other.py:f", "there is no file .*other.py"),
        ("no.such:f", "no.such cannot be imported"),
    ):
        with pytest.raises(ConfigError, match=reason):
            check(SECTION.validate_python({"type": "function", "function": function}))
    with pytest.raises(ConfigError, match=r"mine.py:broken on row 2 raises ZeroDivisionError"):
        scored("function", ["", ""], ["a", "b"], function=f"{file}:broken")
    with pytest.raises(ConfigError, match=r"on row 1 returns '0.5', which is no finite number"):
        scored("function", [""], ["a"], function=f"{file}:texts")


@pytest.mark.parametrize(
    ("keys", "content", "reason"),
    [
        ({"json_schema": {"type": "objekt"}}, None, "it is no JSON Schema: 'objekt'"),
        ({"json_schema": "FILE"}, None, "there is no file"),
        ({"json_schema": "FILE"}, "{", "is no JSON"),
        ({"type": "accuracy", "labels": ["a", "A"]}, None, "differ in more than case"),
        ({"type": "accuracy", "labels": []}, None, "must be texts"),
    ],
)
def test_a_section_that_cannot_be_used_is_refused(tmp_path: Path, keys: Any, content: str | None, reason: str) -> None:
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_text(content)
    keys = {key: str(path) if value == "FILE" else value for key, value in keys.items()}
    with pytest.raises(ConfigError, match=reason):
        check(SECTION.validate_python({"type": "valid_json", **keys}))


def test_a_schema_reads_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr("socket.create_connection", lambda *given, **keys: called.append(given))
    with pytest.raises(ConfigError, match="refers to 'http://127.0.0.1:1/x'"):
        scored("valid_json", [""], ["{}"], json_schema={"$ref": "http://127.0.0.1:1/x"})
    assert called == []


@pytest.mark.parametrize(
    ("type", "keys", "right", "reason"),
    [
        ("json_f1", {}, "no", "reference of row 1 is no JSON: 'no'"),
        ("accuracy", {"labels": ["positive", "negative"]}, "postive", "none of its labels .*Did you mean 'positive'"),
    ],
)
def test_a_wrong_reference_is_named(type: str, keys: Any, right: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        scored(type, [right], ["x"], **keys)


def test_a_missing_library_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert why_not_there(SECTION.validate_python({"type": "exact_match"})) is None
    for type in ("rouge", "bleu", "chrf", "wer"):
        with pytest.raises(ConfigError, match=r"needs the package \w+: pip install 'ftlib\[metrics\]'"):
            scored(type, ["a"], ["a"])


def test_a_task_without_rows_has_no_score() -> None:
    with pytest.raises(InputError, match="no rows to score"):
        scored("exact_match", [], [])
