"""Reward models on TRL's RewardTrainer: one number for a conversation, higher for the answer that was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import RewardConfig, RewardTrainer

from ftlib.config import Experiment, Reward
from ftlib.methods.arguments import training_arguments
from ftlib.methods.evaluation import ByRows
from ftlib.methods.pack_losses.reward import summary
from ftlib.methods.table import Table

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer over `data`, whose rows are already the ids of prompts and of chosen and rejected answers."""
    method = experiment.method
    assert isinstance(method, Reward)
    config = RewardConfig(
        **training_arguments(experiment, output_dir),
        max_length=experiment.data.max_length,
        center_rewards_coefficient=method.center_rewards_coefficient,
    )
    columns = data.train.column_names
    train, held_out = (
        None if part is None else part.map(_whole, batched=True, remove_columns=columns)
        for part in (data.train, data.held_out)
    )
    return _RewardTrainer(
        model=model, args=config, train_dataset=train, eval_dataset=held_out, processing_class=tokenizer
    )


class _RewardTrainer(ByRows, RewardTrainer):
    """TRL's RewardTrainer, evaluated pair by pair."""

    def score(self, model: Any, inputs: dict[str, Any]) -> Table:
        chosen, rejected = model(**inputs, use_cache=False).logits.squeeze(-1).chunk(2)
        return {"chosen": chosen, "rejected": rejected}

    def summary(self, table: Table) -> dict[str, float]:
        """The numbers of an evaluation, by TRL's names."""
        return summary(table, self.args.center_rewards_coefficient or 0.0)


def _whole(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The whole conversations, as the reward model reads them."""
    return {
        name: [prompt + answer for prompt, answer in zip(rows["prompt_ids"], rows[name], strict=True)]
        for name in ("chosen_ids", "rejected_ids")
    }
