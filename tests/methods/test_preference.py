"""DPO, KTO, ORPO and reward models: what ours computes is what TRL computes, called by hand on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from ftlib.config import Experiment
from ftlib.run.directory import Run
from tests.training.test_trial import losses, setting, train

from .conftest import pairs

BY_HAND = {
    "learning_rate": 1e-2,
    "max_steps": 5,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "lr_scheduler_type": "cosine",
    "logging_steps": 1,
    "bf16": False,
    "activation_checkpointing": False,
    "use_cpu": True,
    "report_to": [],
    "seed": 42,
    "save_strategy": "no",
    "disable_tqdm": True,
    "max_length": 64,
}


def conversations(rows: list[dict[str, Any]], *answers: str) -> Dataset:
    """The rows as TRL's conversational format."""
    user = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    columns: dict[str, Any] = {"prompt": user}
    for name in answers:
        columns[name] = [[{"role": "assistant", "content": row[name]}] for row in rows]
    return Dataset.from_dict(columns)


def by_hand(trainer_class: Any, config: Any, rows: Dataset, base: Path, adapter: bool, head: Any = None) -> Any:
    """TRL called as its documentation does: [(step, loss)]."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(42)
    model = (head or AutoModelForCausalLM).from_pretrained(base, **({"num_labels": 1} if head else {}))
    kind = "SEQ_CLS" if head else "CAUSAL_LM"
    if adapter:
        model = get_peft_model(model, LoraConfig(task_type=kind, r=4, lora_alpha=8, target_modules="all-linear"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    trainer = trainer_class(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    return [(row["step"], row["loss"]) for row in trainer.state.log_history if "loss" in row]


def close(ours: list[tuple[int, float]], theirs: list[tuple[int, float]]) -> bool:
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    return [loss for _, loss in ours] == pytest.approx([loss for _, loss in theirs], rel=1e-5)


@pytest.fixture
def all_for_training(quick: dict[str, Any], pairs_file: Path) -> dict[str, Any]:
    """All 80 pairs are trained on, so that TRL draws the same batches."""
    quick["data"].update(train=str(pairs_file), eval=str(pairs_file))
    return quick


@pytest.mark.parametrize("adapter", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize(
    "method",
    [{}, {"loss_type": ["ipo"], "beta": 0.3}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.8, 0.2]}],
    ids=["sigmoid", "ipo", "mpo"],
)
def test_dpo_is_trls(
    all_for_training: dict[str, Any], tmp_path: Path, base: Path, method: dict[str, Any], adapter: bool
) -> None:
    from trl import DPOConfig, DPOTrainer

    all_for_training["method"] = {"type": "dpo", **method}
    if not adapter:
        all_for_training["adapter"] = None
    done = setting(all_for_training, tmp_path)
    train(done)
    config = DPOConfig(output_dir=str(tmp_path / "trl"), **BY_HAND, **method)
    theirs = by_hand(DPOTrainer, config, conversations(pairs(80), "chosen", "rejected"), base, adapter)
    assert close(losses(done), theirs)
    assert theirs[-1][1] != theirs[0][1]


def test_kto_is_trls(quick: dict[str, Any], tmp_path: Path, base: Path, judged_file: Path) -> None:
    import json

    from trl import KTOConfig, KTOTrainer

    quick["data"].update(train=str(judged_file), eval=str(judged_file))
    quick["method"] = {"type": "kto", "undesirable_weight": 1.5}
    done = setting(quick, tmp_path)
    train(done)
    rows = [json.loads(line) for line in judged_file.read_text().splitlines()]
    held = conversations(rows, "completion").add_column("label", [row["label"] for row in rows])
    config = KTOConfig(output_dir=str(tmp_path / "trl"), **BY_HAND, undesirable_weight=1.5)
    assert close(losses(done), by_hand(KTOTrainer, config, held, base, adapter=True))


def test_kto_takes_pairs_as_two_judged_answers(quick: dict[str, Any], tmp_path: Path, pairs_file: Path) -> None:
    quick["data"]["train"] = str(pairs_file)
    quick["method"] = {"type": "kto"}
    done = setting(quick, tmp_path)
    assert train(done)[-1]["finished"]


def test_orpo_is_trls(all_for_training: dict[str, Any], tmp_path: Path, base: Path) -> None:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    all_for_training["method"] = {"type": "orpo", "beta": 0.2}
    done = setting(all_for_training, tmp_path)
    reports = train(done)
    assert reports[-1]["tokens"] > 0  # ORPO's batches have no input_ids to count
    config = ORPOConfig(output_dir=str(tmp_path / "trl"), **BY_HAND, beta=0.2, remove_unused_columns=False)
    assert close(
        losses(done), by_hand(ORPOTrainer, config, conversations(pairs(80), "chosen", "rejected"), base, adapter=True)
    )


def test_simpo_is_trls_and_its_papers(all_for_training: dict[str, Any], tmp_path: Path, base: Path) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    keys = {"beta": 1.5, "simpo_gamma": 0.7, "cpo_alpha": 0.1}
    all_for_training["method"] = {"type": "simpo", **keys}
    done = setting(all_for_training, tmp_path)
    assert train(done)[-1]["finished"]
    config = CPOConfig(
        output_dir=str(tmp_path / "trl"), **BY_HAND, **keys, loss_type="simpo", remove_unused_columns=False
    )
    rows = conversations(pairs(80), "chosen", "rejected")
    assert close(losses(done), by_hand(CPOTrainer, config, rows, base, adapter=True))
    assert losses(done)[0][1] == pytest.approx(simpo_by_hand(done, base, **keys), rel=1e-4)


def simpo_by_hand(done: Any, base: Path, beta: float, simpo_gamma: float, cpo_alpha: float) -> float:
    """The first step's loss, of the untrained base, as the paper writes it (equation 6), pair by pair."""
    import math

    import torch
    from transformers import AutoModelForCausalLM, set_seed

    from ftlib.data import load_prepared
    from ftlib.pack.order import Order

    model, data = AutoModelForCausalLM.from_pretrained(base), load_prepared(Path(done.data)).train
    set_seed(42)
    (numbers,) = Order(len(data), done.experiment().train).batches(0)
    total, tokens = 0.0, []
    for row in data.select(numbers):
        rewards = []
        for name in ("chosen_ids", "rejected_ids"):
            ids = torch.tensor([row["prompt_ids"] + row[name]])
            logits = model(ids).logits[0, len(row["prompt_ids"]) - 1 : -1].detach()
            found = logits.log_softmax(-1).gather(1, torch.tensor(row[name])[:, None])[:, 0]
            rewards.append(beta * float(found.mean()))
            tokens += found.tolist() if name == "chosen_ids" else []
        total += math.log1p(math.exp(-(rewards[0] - rewards[1] - simpo_gamma)))
    return total / len(numbers) - cpo_alpha * sum(tokens) / len(tokens)


def test_reward_is_trls(all_for_training: dict[str, Any], tmp_path: Path, base: Path) -> None:
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    all_for_training["method"] = {"type": "reward"}
    done = setting(all_for_training, tmp_path)
    train(done)
    rows = conversations(pairs(80), "chosen", "rejected")
    config = RewardConfig(output_dir=str(tmp_path / "trl"), **BY_HAND)
    theirs = by_hand(RewardTrainer, config, rows, base, adapter=True, head=AutoModelForSequenceClassification)
    assert close(losses(done), theirs)


def test_the_reference_is_computed_once_for_all_trials(
    all_for_training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import DPOTrainer

    computed = []
    original = DPOTrainer.compute_ref_log_probs
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", lambda *args: computed.append(1) or original(*args))
    all_for_training["method"] = {"type": "dpo"}
    all_for_training["data"]["max_length"] = 63  # rows of their own, so that no other test has filled the cache
    done = setting(all_for_training, tmp_path)
    train(done)
    once = len(computed)
    assert once == 20  # 80 rows to train on and 80 to evaluate on, 8 at a time
    train(done, "001", {"adapter.r": 2, "train.seed": 7, "method.beta": 0.5})
    assert len(computed) == once


def test_accuracies_can_be_swept_by(all_for_training: dict[str, Any], tmp_path: Path) -> None:
    all_for_training["method"] = {"type": "dpo"}
    all_for_training["train"]["max_steps"] = 20
    done = setting(all_for_training, tmp_path, metric="eval_rewards/accuracies", mode="max")
    reports = train(done)
    assert reports[-1]["eval_rewards/accuracies"] > 0.7
    assert Run(Path(done.run)).trial("000").manifest["metrics"]["eval_rewards/accuracies"] > 0.7


def test_a_combination_that_has_no_meaning_is_refused(quick: dict[str, Any]) -> None:
    from ftlib.errors import ConfigError

    for method, reason in [
        ({"loss_type": "exo_pair"}, "needs label_smoothing above 0"),
        ({"loss_type": "apo_zero", "f_divergence_type": "forward_kl"}, "use reverse_kl"),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, "1 values for 2 loss_type"),
        ({"loss_type": "sigmod"}, "sigmoid"),
    ]:
        quick["method"] = {"type": "dpo", **method}
        with pytest.raises(ConfigError, match=reason):
            Experiment.parse(quick)


def test_every_loss_that_trl_has_is_known() -> None:
    import inspect
    import re

    from trl import DPOTrainer

    from ftlib.config.methods import DPOLoss

    theirs = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer)))
    assert theirs == set(DPOLoss.__args__)


def test_a_second_model_is_the_reference_where_nothing_is_kept(
    all_for_training: dict[str, Any], tmp_path: Path
) -> None:
    """Full fine-tuning without precomputing loads the base a second time; the losses are the same."""
    all_for_training["adapter"] = None
    runs = []
    for number, precompute in enumerate((True, False)):
        all_for_training["method"] = {"type": "dpo", "precompute_ref_log_probs": precompute}
        done = setting(all_for_training, tmp_path / str(number))
        train(done)
        runs.append(losses(done))
    assert close(*runs)
