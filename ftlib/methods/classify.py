"""Sequence classification on transformers' Trainer, over encoders and decoders alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import DataCollatorWithPadding, EvalPrediction, Trainer, TrainingArguments

from ftlib.config import Classify, Experiment
from ftlib.methods.arguments import training_arguments
from ftlib.methods.class_weights import class_weights
from ftlib.models import freeze_body

if TYPE_CHECKING:
    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer over `data`, whose rows are ids and the number of a class. It reports accuracy and macro F1."""
    method = experiment.method
    assert isinstance(method, Classify)
    if method.freeze == "encoder":
        freeze_body(model)
    arguments = training_arguments(experiment, output_dir) | {"prediction_loss_only": False}
    return Classifier(
        labels=data.report.labels,
        class_weights=class_weights(method, data),
        label_smoothing=method.label_smoothing,
        model=model,
        args=TrainingArguments(**arguments, label_names=["labels"]),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )


class Classifier(Trainer):
    """The mean of the rows' weighted cross-entropies; after each evaluation it knows the confusion matrix."""

    def __init__(
        self, labels: tuple[str, ...], class_weights: torch.Tensor | None, label_smoothing: float, **kwargs: Any
    ) -> None:
        self.labels, self.class_weights, self.label_smoothing = labels, class_weights, label_smoothing
        self.confusion = np.zeros((len(labels), len(labels)), dtype=int)
        super().__init__(compute_loss_func=self.loss, compute_metrics=self.score, **kwargs)

    def loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """`num_items_in_batch` counts the rows of all accumulated batches, so that they weigh the same."""
        weights = None if self.class_weights is None else self.class_weights.to(labels.device)
        total = cross_entropy(
            outputs["logits"].float(), labels, weights, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    def score(self, prediction: EvalPrediction) -> dict[str, float]:
        """Accuracy, and the mean over the classes of F1 (0 for a class that is neither there nor predicted)."""
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        size = len(self.labels)
        pairs = prediction.label_ids * size + logits.argmax(-1)
        self.confusion = np.bincount(pairs, minlength=size * size).reshape(size, size)
        right, wrong = np.diag(self.confusion), self.confusion.sum(0) + self.confusion.sum(1)
        return {
            "accuracy": float(right.sum() / max(self.confusion.sum(), 1)),
            "f1_macro": float(np.mean(2 * right / np.maximum(wrong, 1))),
        }

    def facts(self) -> dict[str, Any]:
        """For the manifest: rows are the true classes, columns the predicted ones."""
        return {"labels": list(self.labels), "confusion_matrix": self.confusion.tolist()}
