"""Sequence classification on transformers' Trainer, over encoders and decoders alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from ftlib.config import Classify, Experiment
from ftlib.methods.arguments import training_arguments
from ftlib.methods.class_weights import class_weights
from ftlib.methods.evaluation import ByRows
from ftlib.methods.pack_losses.classify import facts, summary
from ftlib.methods.table import Table
from ftlib.models.base import freeze_body

if TYPE_CHECKING:
    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer over `data`, whose rows are ids and the number of a class. It reports accuracy and macro F1."""
    method = experiment.method
    assert isinstance(method, Classify)
    if method.freeze == "encoder":
        freeze_body(model)
    return Classifier(
        labels=data.report.labels,
        class_weights=class_weights(method, data),
        label_smoothing=method.label_smoothing,
        model=model,
        args=TrainingArguments(**training_arguments(experiment, output_dir), label_names=["labels"]),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )


class Classifier(ByRows, Trainer):
    """transformers' Trainer with the mean of the rows' weighted cross-entropies as its loss."""

    def __init__(
        self, labels: tuple[str, ...], class_weights: torch.Tensor | None, label_smoothing: float, **kwargs: Any
    ) -> None:
        self.labels, self.class_weights, self.label_smoothing = labels, class_weights, label_smoothing
        super().__init__(compute_loss_func=self.loss, **kwargs)

    def loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """`num_items_in_batch` counts the rows of all accumulated batches, so that they weigh the same."""
        total = self._losses(outputs["logits"], labels, reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    def _losses(self, logits: torch.Tensor, labels: torch.Tensor, reduction: str) -> torch.Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(labels.device)
        return cross_entropy(logits.float(), labels, weights, reduction=reduction, label_smoothing=self.label_smoothing)

    def score(self, model: Any, inputs: dict[str, Any]) -> Table:
        logits = model(**{name: part for name, part in inputs.items() if name != "labels"})["logits"]
        labels = inputs["labels"]
        return {"loss": self._losses(logits, labels, "none"), "label": labels, "predicted": logits.argmax(-1)}

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, len(self.labels))

    def facts(self) -> dict[str, Any]:
        """What the manifest says about the classifier."""
        return facts(self.table, self.labels)
