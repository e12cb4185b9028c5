"""Simple preference optimization on TRL's (experimental) CPOTrainer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # our pins hold its version

from trl.experimental.cpo import CPOConfig, CPOTrainer

from ftlib.config import Experiment, SimPO
from ftlib.methods.arguments import training_arguments
from ftlib.methods.evaluation import ByRows
from ftlib.methods.pack_losses.simpo import summary
from ftlib.methods.pair_rows import PairRows
from ftlib.methods.table import Table

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer over `data`, whose rows are already the ids of prompts and of chosen and rejected answers."""
    method = experiment.method
    assert isinstance(method, SimPO)
    config = CPOConfig(
        **training_arguments(experiment, output_dir),
        max_length=experiment.data.max_length,
        loss_type="simpo",
        **method.model_dump(exclude={"type"}),
    )
    return _SimPOTrainer(
        method=method,
        model=model,
        args=config,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )


class _SimPOTrainer(PairRows, ByRows, CPOTrainer):
    """TRL's CPOTrainer on rows that are token ids already."""

    nll_on_prompt = False

    def __init__(self, method: SimPO, **kwargs: Any) -> None:
        self.method = method
        super().__init__(**kwargs)

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, self.method)
