"""An evaluation's numbers are those of its rows, however they were put into batches, and those of TRL for one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ftlib.config import Experiment
from ftlib.run.directory import Run
from ftlib.training.build import build
from tests.training.test_trial import losses, setting, train

from ..conftest import write_jsonl
from .conftest import labelled, pairs

UNEVEN = [
    {"prompt": f"question {n}", "completion": "a longer answer that goes on " * (n % 3 + 1) if n % 2 == 0 else "yes"}
    for n in range(18)
]
UNEVEN_PAIRS = [{**row, "chosen": row["chosen"] + " Yes." * (n % 5)} for n, row in enumerate(pairs(18))]
JUDGED = [
    {"prompt": row["prompt"], "completion": row["chosen" if n % 3 else "rejected"], "label": bool(n % 3)}
    for n, row in enumerate(UNEVEN_PAIRS)
]
TEXTS = [{"text": f"{row['prompt']} {row['completion']}"} for row in UNEVEN]
METHODS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "sft": ({"type": "sft"}, UNEVEN),
    "pretrain": ({"type": "pretrain"}, TEXTS),
    "classify": ({"type": "classify", "class_weights": "balanced", "label_smoothing": 0.1}, labelled(18)),
    "dpo": ({"type": "dpo", "loss_type": ["sigmoid", "sft", "aot"]}, UNEVEN_PAIRS),
    "dpo, a live reference": ({"type": "dpo", "loss_type": ["ipo"], "precompute_ref_log_probs": False}, UNEVEN_PAIRS),
    "kto": ({"type": "kto", "undesirable_weight": 1.5}, JUDGED),
    "kto, a live reference": ({"type": "kto", "precompute_ref_log_probs": False}, JUDGED),
    "orpo": ({"type": "orpo"}, UNEVEN_PAIRS),
    "simpo": ({"type": "simpo", "cpo_alpha": 0.3, "label_smoothing": 0.1}, UNEVEN_PAIRS),
    "reward": ({"type": "reward", "center_rewards_coefficient": 0.1}, UNEVEN_PAIRS),
}
LIKE_ANOTHER = ("pretrain", "kto, a live reference")


@pytest.fixture
def uneven(tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    tree["data"].update(train=str(write_jsonl(tmp_path / "rows.jsonl", UNEVEN)), max_length=128)
    return tree


def trainer_of(tree: dict[str, Any], folder: Path, batch: int) -> Any:
    tree["train"]["per_device_eval_batch_size"] = batch
    done = setting(tree, folder)
    made, _ = build(Experiment.parse(tree), done, Run(Path(done.run)).trial("000"))
    with torch.no_grad():  # a fresh adapter changes nothing: a preference would be compared with itself
        for number, (name, part) in enumerate(made.model.named_parameters()):
            if "lora_B" in name:
                part.copy_(0.1 * torch.randn(part.shape, generator=torch.Generator().manual_seed(number)))
    return made


def numbers(metrics: dict[str, float]) -> dict[str, float]:
    times = ("_runtime", "_per_second", "_time", "num_tokens")
    return {name: value for name, value in metrics.items() if not name.endswith(times)}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.matrix if case in LIKE_ANOTHER else ()) for case in METHODS]
)
def test_no_batch_size_changes_an_evaluation_and_one_batch_of_all_is_trls(
    case: str, uneven: dict[str, Any], tmp_path: Path
) -> None:
    uneven["method"], rows = METHODS[case]
    file = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    uneven["data"].update(train=file, eval=file, template="auto")
    uneven["train"]["per_device_train_batch_size"] = 18  # TRL makes KTO's mismatches within the training batch
    ours = numbers(trainer_of(uneven, tmp_path / "ours", 4).evaluate())
    parts = ours.pop("eval_loss_parts")
    assert len(parts) == 16
    assert min(parts) < ours["eval_loss"] < max(parts)
    theirs = one_batch_of_trls(trainer_of(uneven, tmp_path / "trls", 18))
    assert ours["eval_loss"] == pytest.approx(theirs.pop("eval_loss"), rel=1e-4, abs=1e-5)
    shared = theirs.keys() & ours.keys()
    assert len(shared) >= {"classify": 0, "sft": 2, "pretrain": 2}.get(case, 4)
    assert {name: ours[name] for name in shared} == pytest.approx(
        {name: theirs[name] for name in shared}, rel=1e-4, abs=1e-5
    )


def one_batch_of_trls(trainer: Any) -> dict[str, float]:
    """What TRL's own loss, and its own metrics, are of all rows in one batch."""
    (batch,) = trainer.get_eval_dataloader()
    trainer.model.eval()
    trainer._metrics = {"eval": {}, "train": {}} if not hasattr(trainer, "_metrics") else trainer._metrics
    trainer._metrics["eval"].clear()
    with torch.no_grad():
        if hasattr(trainer, "get_batch_loss_metrics"):  # ORPO
            loss, metrics = trainer.get_batch_loss_metrics(trainer.model, batch, "eval")
            return {"eval_loss": float(loss), **metrics}
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))
    return {
        "eval_loss": float(loss),
        **{f"eval_{name}": values[0] for name, values in trainer._metrics["eval"].items()},
    }


def test_accumulated_batches_weigh_every_token_the_same(uneven: dict[str, Any], tmp_path: Path) -> None:
    """The logged training loss is the mean over the step's answer tokens too."""
    first = []
    for batch, accumulated in ((12, 1), (3, 4)):
        uneven["train"].update(
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated, max_steps=1, logging_steps=1
        )
        done = setting(uneven, tmp_path / str(batch))
        train(done)
        first.append(losses(done)[0])
    assert first[0] == pytest.approx(first[1], rel=1e-5)
