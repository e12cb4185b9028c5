"""Classification by a decoder: weighted cross-entropy of each row's class, read at the last token of its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from ftlib.methods.class_weights import class_weights
from ftlib.methods.objectives.base import Objective, Scored, Split, Tokens


class Classify(Objective):
    """Rows of `input_ids` and the number of a class. The head is the trial's own, trained whole."""

    def __init__(self, experiment: Any, data: Any, pad_token_id: int) -> None:
        super().__init__(experiment, data)
        self.pad_token_id = pad_token_id
        self.weights = class_weights(self.method, data)
        size = len(data.report.labels)
        self.confusion = np.zeros((size, size), dtype=int)

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = []
        for number in rows:
            row = self.row(split, number)
            ids = np.asarray(row["input_ids"], dtype=np.int64)
            real = np.flatnonzero(ids != self.pad_token_id)  # as transformers finds the end of a text
            found.append(Tokens(ids, real[-1:] if len(real) else np.array([len(ids) - 1]), np.array([row["labels"]])))
        return found

    def items(self, rows: Sequence[int], picked: int) -> int:
        return len(rows)

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        weights = None if self.weights is None else self.weights.to(scored.logits.device)
        smoothing = self.method.label_smoothing
        total = cross_entropy(
            scored.logits.float(), scored.targets, weights, reduction="sum", label_smoothing=smoothing
        )
        return total / (len(rows) if items is None else items)

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> dict[str, float]:
        size = len(self.confusion)
        pairs = (scored.targets * size + scored.logits.argmax(-1)).cpu().numpy()
        counts = np.bincount(pairs, minlength=size * size).reshape(size, size)
        return {**super().evaluate(scored, split, rows), "_confusion": counts}  # type: ignore[dict-item]

    def finish(self, evaluations: list[dict[str, float]], rows: list[int]) -> dict[str, float]:
        self.confusion = np.sum([each.pop("_confusion") for each in evaluations], axis=0)
        right, wrong = np.diag(self.confusion), self.confusion.sum(0) + self.confusion.sum(1)
        scores = {
            "eval_accuracy": float(right.sum() / max(self.confusion.sum(), 1)),
            "eval_f1_macro": float(np.mean(2 * right / np.maximum(wrong, 1))),
        }
        return {**super().finish(evaluations, rows), **scores}

    def facts(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        return {"labels": list(self.data.report.labels), "confusion_matrix": self.confusion.tolist()}


def make(experiment: Any, data: Any, base: Any) -> Classify:
    """The objective of a classifier."""
    return Classify(experiment, data, base.pad_token_id)
