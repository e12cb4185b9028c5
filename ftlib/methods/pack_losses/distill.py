"""Distillation by logits: the teacher's distribution at every labelled token, beside the labels themselves.

What the teacher says is read from the cache; it is the cache of the solo trials too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ftlib.methods.distillation.losses import softened_kl
from ftlib.methods.distillation.targets import Targets
from ftlib.methods.pack_losses.base import Scored, Split
from ftlib.methods.pack_losses.language import Language
from ftlib.models.to_device import sent


class Distill(Language):
    """Rows of `input_ids` and `labels`. Evaluated as without a teacher, so that students compare with and without."""

    def __init__(
        self,
        experiment: Any,
        data: Any,
        targets: Targets,
        classes: int,
        known: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        super().__init__(experiment, data)
        self.targets, self.classes, self.known = targets, classes, known

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        labelled = super().loss(scored, split, rows, items)
        said = {name: sent(tensor, scored.logits.device) for name, tensor in self.targets.of(list(rows)).items()}
        kl = softened_kl(
            scored.logits[:, : self.classes],
            said["teacher_values"],
            said.get("teacher_tokens"),
            self.method.temperature,
        )
        taught = kl.sum() / max(len(scored.targets) if items is None else items, 1)
        return self.method.alpha * taught + (1 - self.method.alpha) * labelled

    def facts(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        return {"teacher": {"kind": self.method.kind, **self.known(evaluation)}}


def make(experiment: Any, data: Any, base: Any) -> Distill:
    """The objective of a student; its teacher runs once, when the cache does not know it."""
    return Distill(experiment, data, *base.teacher(experiment))
