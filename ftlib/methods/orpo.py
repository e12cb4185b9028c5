"""Odds-ratio preference optimization on TRL's (experimental) ORPOTrainer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # our pins hold its version

from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from ftlib.config import ORPO, Experiment
from ftlib.methods.arguments import training_arguments
from ftlib.methods.evaluation import ByRows
from ftlib.methods.pack_losses.orpo import summary
from ftlib.methods.pair_rows import PairRows
from ftlib.methods.table import Table

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer over `data`, whose rows are already the ids of prompts and of chosen and rejected answers."""
    method = experiment.method
    assert isinstance(method, ORPO)
    config = ORPOConfig(
        **training_arguments(experiment, output_dir), max_length=experiment.data.max_length, beta=method.beta
    )
    return _ORPOTrainer(
        model=model, args=config, train_dataset=data.train, eval_dataset=data.held_out, processing_class=tokenizer
    )


class _ORPOTrainer(PairRows, ByRows, ORPOTrainer):
    """TRL's ORPOTrainer on rows that are token ids already."""

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, self.beta)
