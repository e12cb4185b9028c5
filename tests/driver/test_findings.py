"""What `check` says is odd: each thing where it is, the most important first, and nothing where all is well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.config.loader import set_dotted
from ftlib.data import DataReport, Lengths
from ftlib.driver.findings import findings

REPORT = DataReport(
    rows="answers",
    format="alpaca",
    template="alpaca",
    max_length=64,
    rows_read=1000,
    skipped=0,
    skipped_rows=(),
    truncated=0,
    dropped=0,
    train_rows=900,
    eval_rows=100,
    train_tokens=9000,
    trained_tokens=4000,
    lengths=Lengths(1, 10.0, 10, 20, 30),
)


def said(changes: dict[str, Any], report: DataReport = REPORT, steps: int = 100, hours: float | None = 1) -> list[str]:
    tree: dict[str, Any] = {
        "name": "x", "model": {"name_or_path": "m"}, "data": {"train": "d"}, "method": {"type": "sft"},
        "adapter": {"type": "lora"}, "track": {"wandb": None},
    }  # fmt: skip
    for path, value in changes.items():
        set_dotted(tree, path, value)
    return findings(Experiment.parse(tree), report, steps, hours)


def test_nothing_is_odd() -> None:
    assert said({}) == said({}, hours=None) == []


@pytest.mark.parametrize(
    ("changes", "more", "sentence"),
    [
        ({}, {"hours": 13.4}, "it may take 13 hours here"),
        ({}, {"report": replace(REPORT, truncated=120)}, "12% of the rows are longer than data.max_length 64"),
        ({"data.eval_split": 0}, {}, "nothing is held out"),
        ({}, {"steps": 12}, "a trial has 12 optimizer steps"),
        ({"train.warmup_steps": 100}, {}, "train.warmup_steps 100 is all of a trial's 100 steps"),
        ({"adapter": None}, {}, "train.learning_rate 0.0002 is high for all weights"),
        ({}, {"report": replace(REPORT, odd=("two rows are one",))}, "two rows are one"),
    ],
)
def test_what_is_odd_is_said(changes: dict[str, Any], more: dict[str, Any], sentence: str) -> None:
    (found,) = said(changes, **more)
    assert found.startswith(sentence)


def test_numbers_that_leave_the_machine_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    (found,) = said({"track.wandb": {"project": "mine"}})
    assert "W&B (project mine)" in found


def test_the_most_important_stands_first() -> None:
    report = replace(REPORT, truncated=500, odd=("two rows are one",))
    first, second, third, last = said({}, report, steps=3, hours=100)
    assert (first[:11], second[:3], third) == ("it may take", "50%", "two rows are one")
    assert last.startswith("a trial has 3")
