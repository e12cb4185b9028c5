"""The file of `ftlib pipeline`: what is wrong in it is said by name, and `when` is no program."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.config.pipeline import Pipeline
from ftlib.config.pipeline.order import after, ordered
from ftlib.config.pipeline.when import Condition
from ftlib.config.schema import descriptions, sections
from ftlib.errors import ConfigError

STEPS: dict[str, dict[str, Any]] = {
    "data": {"build": "r.yaml"},
    "sft": {"sweep": "sft.yaml", "needs": "data", "as": "tickets-sft"},
    "release": {"promote": "sft", "as": "tickets", "if_better_than": "base"},
    "watch": {"monitor": "tickets"},
}


def why_not(name: str | None = None, step: Any = None, **more: Any) -> str:
    """What is said of a pipeline with one step changed."""
    steps = {**STEPS, **({name: step} if name else {})}
    with pytest.raises(ConfigError) as refused:
        Pipeline.parse({"name": "p", "steps": steps, **more}, "p.yaml")
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("data", {"biuld": "r.yaml"}, "steps.data: a step says one of build, sweep, train, evaluate, promote, serve, "
         "monitor, but this one says none of them. Did you mean 'build'?"),
        ("data", {"build": "r.yaml", "serve": "a"}, "steps.data: a step says one of build, sweep, train, evaluate, "
         "promote, serve, monitor, but this one says build and serve."),
        ("data", {"build": "r.yaml", "nedes": "a"}, "steps.data: there is no key 'nedes'. Did you mean 'needs'?"),
        ("sft", {"sweep": "sft.yaml", "needs": "dta"}, "steps.sft.needs: there is no step 'dta'. Did you mean 'data'?"),
        ("data", {"build": "r.yaml", "needs": "release"}, "steps need each other in a circle: data needs release needs "
         "sft needs data."),
        ("release", {"promote": "stf", "as": "t"}, "steps.release.promote: 'stf' is no step that trains: there is sft. "
         "Did you mean 'sft'?"),
        ("release", {"promote": "sft"}, "steps.release: as is missing."),
        ("judge", {"evaluate": ["sftt"], "task": {"data": "t.jsonl", "metrics": ["token_f1"]}}, "steps.judge.evaluate: "
         "'sftt' is no step that trains, and no folder. Did you mean 'sft'?"),
        ("A b", {"build": "r.yaml"}, "'A b' cannot be a step's name: use 1 to 64 of a-z, 0-9, '.', '_' and '-'."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_step_is_said_by_name(name: str, step: Any, said: str) -> None:
    assert why_not(name, step) == f"p.yaml: {said}"


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert why_not("data", {}, whn="age > 1").count("\n") == 0  # a step that is none cannot be gone on with
    steps = {"a": {}, "b": {"build": "x", "nedes": "a"}}
    with pytest.raises(ConfigError) as refused:
        Pipeline.parse({"name": "p", "steps": steps})
    assert len(str(refused.value).splitlines()) == 2


def test_a_figure_of_the_traffic_needs_a_step_that_monitors() -> None:
    steps = {name: step for name, step in STEPS.items() if name != "watch"}
    assert Pipeline.parse({"name": "p", "steps": steps, "when": "age > 7"}).condition is not None
    with pytest.raises(ConfigError, match="when looks at drift, which a step tells that says monitor: add one"):
        Pipeline.parse({"name": "p", "steps": steps, "when": "drift > 0.2 or age > 7"})


@pytest.mark.parametrize(
    ("text", "figures", "due"),
    [
        ("drift > 0.2 or new_rows > 500", {"drift": 0.1, "new_rows": 501.0}, True),
        ("drift > 0.2 or new_rows > 500", {"drift": 0.2, "new_rows": 500.0}, False),
        ("drift > 0.2 and (new_rows >= 5 or age > 7)", {"drift": 0.3, "new_rows": 5.0, "age": 0.0}, True),
        ("drift > 0.2 and new_rows >= 5 or age > 7", {"drift": 0.0, "new_rows": 9.0, "age": 8.0}, True),
        ("0.1 < drift < 0.3", {"drift": 0.3}, False),
        ("drift < 0.2", {"drift": None}, False),  # nobody knows it yet
    ],
)
def test_a_condition_holds_or_does_not(text: str, figures: dict[str, float | None], due: bool) -> None:
    assert Condition.parse(text).holds(figures) is due


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("drfit > 0.2", "there is no figure 'drfit': there is drift, new_rows, age. Did you mean 'drift'?"),
        ("drift", "'drift' says neither yes nor no"),
        ("__import__('os').system('true') > 1", "is neither a figure"),
        ("drift > 0.2 or [].append(1)", "is none of comparisons"),
        ("drift > True", "'True' is neither a figure"),
        ("drift > 1e999", "is neither a figure"),
        ("drift in age", "is none of comparisons"),
        ("not drift > 1", "says neither yes nor no"),
        ("drift >", "cannot be read"),
        ("(" * 240 + "age > 1" + ")" * 240, "cannot be read"),
        ("age > 1 or " * 50 + "age > 1", "it has more than 500 characters"),
    ],
)
def test_a_condition_is_no_program(text: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        Condition.parse(text)
    assert said in str(refused.value)
    assert f"when: {str(refused.value).rstrip('.?')}" in why_not(when=text)


def test_every_key_is_described() -> None:
    for section in sections(Pipeline):
        missing = section.model_fields.keys() - descriptions(section).keys()
        assert not missing, f"{section.__name__}: write a line of text under {sorted(missing)}"


def test_the_order_keeps_what_is_written_where_nothing_is_needed() -> None:
    needs = {"c": ["a"], "b": [], "a": ["b"], "d": ["b"]}
    assert ordered(needs) == ["b", "a", "c", "d"]
    assert after("a", needs) == {"a", "c"}
