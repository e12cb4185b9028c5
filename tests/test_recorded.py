"""The numbers of a fixed packed sweep and of fixed trials alone: no rearrangement of the code may change a bit of
them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlib.run.directory import Run
from tests.support.recorded import recorded
from tests.training.test_trial import setting, train

from .conftest import ftlib, only_run, write_experiment, write_jsonl
from .methods.conftest import pairs

KEYS = ("loss", "grad_norm", "eval_loss", "eval_rewards/accuracies")


def numbers(trial: Any) -> dict[str, list[float]]:
    rows = trial.metrics()
    return {key: [row[key] for row in rows if key in row] for key in KEYS if any(key in row for row in rows)}


def test_a_packed_sweep(tree: dict[str, Any], tmp_path: Path, ray_local: None) -> None:
    tree["train"].update(num_train_epochs=2, logging_steps=1, eval_strategy="epoch")
    tree["adapter"]["lora_dropout"] = 0.1
    tree["sweep"] = {
        "space": {
            "adapter.r": [2, 4],
            "train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True},
            "adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 2]},
        },
        "num_samples": 4,
        "scheduler": {"type": "none"},
        "pack": 4,
    }
    status, output = ftlib("sweep", write_experiment(tmp_path / "sweep.yaml", tree))
    assert status == 0, output
    found = {}
    for trial in only_run(tree["storage"]).trials():
        found |= {f"{trial.id} {key}": values for key, values in numbers(trial).items()}
        found[f"{trial.id} point"] = [str(sorted(trial.params.items()))]
    recorded("packed_sweep", found)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_trial_alone(method: str, tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"].update(logging_steps=1, eval_strategy="steps", eval_steps=3, max_steps=8)
    if method == "dpo":
        tree["method"], tree["data"]["train"] = {"type": "dpo"}, str(write_jsonl(tmp_path / "pairs.jsonl", pairs(80)))
    made = setting(tree, tmp_path)
    train(made)
    recorded(f"trial_{method}", numbers(Run(Path(made.run)).trial("000")))
