"""What trials of a pack write side by side is what each writes alone, with PEFT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from ftlib.config import ModelSection
from ftlib.errors import TrialError
from ftlib.evaluation.answers import answers
from ftlib.evaluation.trial_tasks import TrialTask
from ftlib.models.base import load_model
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from tests.conftest import rows, write_jsonl
from tests.pack.conftest import pack_of, train, trial
from tests.training.test_trial import setting
from tests.training.test_trial import train as train_alone

METRIC = "colours/exact_match"
CHECKPOINTED = {"activation_checkpointing": True}


@pytest.fixture
def asked(tree: dict[str, Any], tmp_path: Path) -> Setting:
    file = write_jsonl(tmp_path / "test.jsonl", rows(13))
    task = {"name": "colours", "data": str(file), "metrics": ["exact_match", "perplexity"], "max_new_tokens": 12}
    tree["evaluation"] = {"tasks": [task]}
    tree["train"].update(max_steps=100, logging_steps=50, eval_strategy="end", per_device_eval_batch_size=4)
    tree["sweep"] = {"space": {"train.learning_rate": [1e-2]}, "search": {"type": "grid"}, "metric": METRIC}
    return setting(tree, tmp_path / "shared", metric=METRIC, mode="max")


def test_packed_answers_are_those_of_peft(
    asked: Setting, base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Three trials of other ranks and rates, one of which has learned its rows, and the base; with activation
    checkpointing, where a model in training takes no cache."""
    asked = replace(asked, resolved={**asked.resolved, "train": {**asked.resolved["train"], **CHECKPOINTED}})
    heard: list[list[str]] = []
    told = TrialTask.numbers_of
    monkeypatch.setattr(
        TrialTask, "numbers_of", lambda task, found: heard.append([one.text for one in found]) or told(task, found)
    )
    pack = pack_of(asked)
    points = {
        "000": {"train.learning_rate": 2e-2, "adapter.r": 8},
        "001": {"train.learning_rate": 3e-3, "adapter.r": 2},
        "002": {"train.learning_rate": 1e-2, "adapter.use_rslora": True},
    }
    assert train(pack, points) == {}
    pack.evaluate_base(lambda: _objective(pack))
    packed, task = heard[-4:], pack.tasks.tasks[0]
    assert task is not None
    torch.set_num_threads(1)
    for name, written in zip((*points, None), packed, strict=True):
        model = load_model(ModelSection(name_or_path=str(base))).eval()
        if name is not None:
            model = PeftModel.from_pretrained(model, trial(asked, name).weights).eval()
        assert [one.text for one in answers(model, task.writer, task.questions)] == written
        row = (trial(asked, name) if name else Run(Path(asked.run)).trial("base")).metrics()[-1]
        alone = task.numbers(model)
        assert row[METRIC] == alone[METRIC]
        assert row["colours/perplexity"] == pytest.approx(alone["colours/perplexity"], rel=1e-3)
    assert len({tuple(written) for written in packed}) == 4
    assert trial(asked, "000").metrics()[-1][METRIC] > trial(asked, "001").metrics()[-1][METRIC]


def test_a_trial_on_its_own_has_the_task_beside_its_loss(asked: Setting) -> None:
    reports = train_alone(asked)
    row = Run(Path(asked.run)).trial("000").metrics()[-1]
    assert reports[-1][METRIC] == row[METRIC]
    assert len(row[f"{METRIC}_parts"]) == 6  # half of the rows, the others are for the verdict
    assert sum(row[f"{METRIC}_parts"]) / 6 == pytest.approx(row[METRIC])
    assert row["eval_loss"] > 0
    assert Run(Path(asked.run)).trial("000").manifest["metrics"][METRIC] == row[METRIC]


def _objective(pack: Any) -> Any:
    from ftlib.methods.pack_losses import objective

    return objective(pack.setting.experiment(), pack.base.data, pack.base)


def test_a_metric_without_a_number_fails_its_trial(asked: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a judge that is away: no trial wins by it, alone or in a pack, and each says why."""
    monkeypatch.setattr(TrialTask, "numbers_of", lambda task, found: {METRIC: float("nan")})
    assert f"{METRIC} is no number at step 100" in train(pack_of(asked), {"000": {}})["000"]
    with pytest.raises(TrialError, match="no answer has a score"):
        train_alone(asked, "001")
