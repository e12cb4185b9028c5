"""Supervised fine-tuning on TRL's SFTTrainer: cross-entropy on the labelled tokens (the completion, by default)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.config import Experiment
from ftlib.methods.arguments import training_arguments

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(
    experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path, kind: Any = None
) -> Trainer:
    """A trainer over `data`, whose rows are already tokens and labels; `kind` is a child of AnswerTrainer to be used
    instead."""
    from trl import SFTConfig

    from ftlib.methods.token_trainer import AnswerTrainer

    packing = experiment.data.packing
    config = SFTConfig(
        **training_arguments(experiment, output_dir),
        max_length=experiment.data.max_length,
        packing=packing,
        eval_packing=False,
        # Rows come tokenized, labelled and cut; only packing has something left to prepare.
        dataset_kwargs={"skip_prepare_dataset": not packing},
    )
    return (kind or AnswerTrainer)(
        model=model,
        args=config,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )
