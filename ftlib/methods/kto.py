"""Kahneman-Tversky optimization on TRL's KTOTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import KTOConfig, KTOTrainer

from ftlib.config import KTO, Experiment
from ftlib.methods.arguments import training_arguments
from ftlib.methods.reference import OneReference, reference_of

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer over `data`, whose rows are already the ids of prompts and answers, and a label."""
    method = experiment.method
    assert isinstance(method, KTO)
    config = KTOConfig(
        **training_arguments(experiment, output_dir),
        max_length=experiment.data.max_length,
        precompute_ref_batch_size=experiment.train.per_device_eval_batch_size,
        **method.model_dump(exclude={"type"}),
    )
    return _KTOTrainer(
        reference=reference_of(experiment, model),
        model=model,
        args=config,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )


def _add_mismatched(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Each prompt beside its neighbour's answer in the batch, from which KTO estimates the divergence (TRL's rule)."""
    answers = rows["completion_ids"]
    return {**rows, "KL_completion_ids": [answers[-1], *answers[:-1]]}


class _KTOTrainer(OneReference, KTOTrainer):
    """Takes rows as they are."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: KTOConfig, *rest: Any) -> Any:
        if not self.calculate_KL:
            return dataset
        return dataset.map(_add_mismatched, batched=True, batch_size=args.per_device_train_batch_size)
