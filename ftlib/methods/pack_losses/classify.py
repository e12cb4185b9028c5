"""Classification: weighted cross-entropy of each row's class. A decoder's is read at the last token of the text, an
encoder's at the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from ftlib.methods.class_weights import class_weights
from ftlib.methods.pack_losses.base import Objective, Scored, Split, Tokens, place_of_text
from ftlib.methods.table import Table, mean


class Classify(Objective):
    """Rows of `input_ids` and the number of a class. The head is the trial's own, trained whole."""

    def __init__(self, experiment: Any, data: Any, pad_token_id: int, reads_first: bool = False) -> None:
        super().__init__(experiment, data)
        self.pad_token_id, self.reads_first = pad_token_id, reads_first
        self.weights = class_weights(self.method, data)

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = []
        for number in rows:
            row = self.row(split, number)
            ids = np.asarray(row["input_ids"], dtype=np.int64)
            place = 0 if self.reads_first else place_of_text(ids, self.pad_token_id)
            found.append(Tokens(ids, np.array([place]), np.array([row["labels"]])))
        return found

    def items(self, rows: Sequence[int], picked: int) -> int:
        return len(rows)

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        total = self._losses(scored, reduction="sum")
        return total / (len(rows) if items is None else items)

    def _losses(self, scored: Scored, reduction: str) -> Tensor:
        weights = None if self.weights is None else self.weights.to(scored.logits.device)
        smoothing = self.method.label_smoothing
        return cross_entropy(
            scored.logits.float(), scored.targets, weights, reduction=reduction, label_smoothing=smoothing
        )

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        losses = self._losses(scored, reduction="none")
        return {"loss": losses, "label": scored.targets, "predicted": scored.logits.argmax(-1)}

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, len(self.data.report.labels))

    def facts(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        return facts(self.table, self.data.report.labels)


def summary(table: Table, classes: int) -> dict[str, float]:
    """The mean of the rows' losses, accuracy, and the mean over the classes of F1 (0 for a class that is neither there
    nor predicted)."""
    confusion = _confusion(table, classes)
    right, wrong = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    return {
        "loss": mean(table["loss"]),
        "accuracy": mean((table["label"] == table["predicted"]).double()),
        "f1_macro": float(np.mean(2 * right / np.maximum(wrong, 1))),
    }


def facts(table: Table | None, labels: Sequence[str]) -> dict[str, Any]:
    """What the manifest says about the classifier: the confusion matrix. Its rows are the true classes, and its columns
    are the predicted ones."""
    matrix = {} if table is None else {"confusion_matrix": _confusion(table, len(labels)).tolist()}
    return {"labels": list(labels), **matrix}


def _confusion(table: Table, classes: int) -> np.ndarray:
    pairs = (table["label"] * classes + table["predicted"]).long().numpy()
    counted: np.ndarray = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return counted


def make(experiment: Any, data: Any, base: Any) -> Classify:
    """The objective of a classifier."""
    return Classify(experiment, data, base.pad_token_id, base.is_encoder)
