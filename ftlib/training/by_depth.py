"""Training that knows how deep a weight lies: a rate that falls by layer, and layers that join one after another."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftlib.errors import TrialError
from ftlib.models.depth import Depths, top_of


def lower_rates(trainer: Trainer, decay: float) -> None:
    """Makes the trainer's optimizer, with a group for each depth: a layer's rate is that of the layer above it times
    `decay` (ELECTRA, Clark et al. 2020, arXiv:2003.10555; BEiT, Bao et al. 2021, arXiv:2106.08254).

    The top has `train.learning_rate`. Its group is the first, whose rate is reported.
    """
    optimizer = trainer.create_optimizer()
    trained = Depths.of(trainer.model).trained(trainer.model)
    top, depths = top_of(trained), {id(part): depth for part, depth in trained}
    groups = []
    for group in optimizer.param_groups:
        parts: dict[int, list[Tensor]] = defaultdict(list)
        for part in group["params"]:
            parts[min(depths.get(id(part), top), top)].append(part)
        groups += [{**group, "params": found, "lr": group["lr"] * decay ** (top - at)} for at, found in parts.items()]
    optimizer.param_groups[:] = sorted(groups, key=lambda group: -float(group["lr"]))


class Unfreezing(TrainerCallback):
    """Gradual unfreezing (ULMFiT, Howard and Ruder 2018, arXiv:1801.06146): the top is trained alone, and after each
    `every` steps the layer below joins."""

    def __init__(self, model: Any, every: int) -> None:
        self.every = every
        self.trained = Depths.of(model).trained(model)
        self.top = top_of(self.trained)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raises TrialError where the lowest layer would never be trained."""
        depths = {min(depth, self.top) for _, depth in self.trained}
        last = (self.top - min(depths)) * self.every
        if last >= state.max_steps:
            raise TrialError(
                f"train.unfreeze_steps: with {self.every} steps before each layer, the lowest would join at step "
                f"{last}, and the trial has {state.max_steps}: lower it, or train for longer."
            )
        self._train_until(state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step % self.every == 0:
            self._train_until(state.global_step)

    def _train_until(self, step: int) -> None:
        lowest = self.top - step // self.every
        for part, depth in self.trained:
            part.requires_grad_(depth >= lowest)
