"""Supervised fine-tuning on TRL's SFTTrainer: cross-entropy on the labelled tokens (the completion, by default)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.config import SFT, Experiment
from ftlib.config.methods.supervised import EWC
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
        loss_type=getattr(experiment.method, "loss_type", "nll"),
        router_aux_loss_coef=getattr(experiment.method, "router_aux_loss_coef", None),
        # Rows come tokenized, labelled and cut; only packing has something left to prepare.
        dataset_kwargs={"skip_prepare_dataset": not packing},
    )
    given = {
        "model": model,
        "args": config,
        "train_dataset": data.train,
        "eval_dataset": data.held_out,
        "processing_class": tokenizer,
    }
    if ewc_of(experiment) is not None:
        return _held(experiment, tokenizer, given)
    return (kind or AnswerTrainer)(**given)


def check(experiment: Experiment) -> None:
    """Raises DataError for old rows (`method.ewc.data`) that cannot be read."""
    if ewc_of(experiment) is not None:
        from ftlib.methods.ewc import old_rows
        from ftlib.models.base import load_tokenizer

        old_rows(experiment, load_tokenizer(experiment.model))


def ewc_of(experiment: Experiment) -> EWC | None:
    """What the method holds near the base; None where it holds nothing."""
    return experiment.method.ewc if isinstance(experiment.method, SFT) else None


def _held(experiment: Experiment, tokenizer: Any, given: dict[str, Any]) -> Trainer:
    from ftlib.methods.ewc import EWCTrainer, old_rows, penalty_of

    ewc = ewc_of(experiment)
    assert ewc is not None
    built = EWCTrainer(**given)
    built.hold(lambda: penalty_of(ewc, built, old_rows(experiment, tokenizer).train))
    return built
