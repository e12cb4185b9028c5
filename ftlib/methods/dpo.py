"""Direct preference optimization and its relatives on TRL's DPOTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import DPOConfig, DPOTrainer

from ftlib.config import DPO, Experiment
from ftlib.methods.arguments import training_arguments
from ftlib.methods.reference import OneReference, reference_of

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer over `data`, whose rows are already the ids of prompts and of chosen and rejected answers."""
    method = experiment.method
    assert isinstance(method, DPO)
    config = DPOConfig(
        **training_arguments(experiment, output_dir),
        max_length=experiment.data.max_length,
        precompute_ref_batch_size=experiment.train.per_device_eval_batch_size,
        **method.model_dump(exclude={"type"}),
    )
    return _DPOTrainer(
        reference=reference_of(experiment, model),
        model=model,
        args=config,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )


class _DPOTrainer(OneReference, DPOTrainer):
    """Takes rows as they are."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset
