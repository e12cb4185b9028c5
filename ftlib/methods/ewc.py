"""Elastic weight consolidation (EWC, Kirkpatrick et al. 2017, arXiv:1612.00796): what old rows need stays where it was.

The penalty is weight / 2 * sum of F * drift^2, over the weights of the model. F is the diagonal of the empirical Fisher
information: the squared gradient of each old row's loss (a mean over its answer tokens) at the base, and of these the
mean over rows. The drift is how far a weight is from the base.

For LoRA, F and drift are those of the weights that the adapter works on, and the drift is what it adds to them, B A
times its scale. Of A and B themselves, EWC would hold nothing: B begins with zeros, so A has no gradient and no
Fisher information at the base, and a larger A moves the weights as far as it likes while B stays near its zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from ftlib.config import SFT, Experiment
from ftlib.config.methods.supervised import EWC
from ftlib.data import Prepared, prepare
from ftlib.data.tokenize import IGNORED
from ftlib.errors import DataError
from ftlib.methods.token_trainer import AnswerTrainer

ADAPTER = "default"  # PEFT's name of the one that is trained
PENALTY = "ewc_penalty"


class EWCTrainer(AnswerTrainer):
    """SFT with the penalty in its training loss. `loss` of a log is without it, which stands beside it."""

    penalty: Penalty

    def hold(self, look: Callable[[], Penalty]) -> None:
        """Takes what makes the penalty."""
        self.look = look

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Looks at the old rows first, while the model is its base, and not what a checkpoint has."""
        self.penalty, self.sum, self.count = self.look(), 0.0, 0
        return super().train(*args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The penalty counts once a step. Where the loss is a sum over all batches of a step, nobody divides it
        later."""
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        penalty = self.penalty()
        self.sum, self.count = self.sum + penalty.detach(), self.count + 1
        batches = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        if return_outputs:
            return found[0] + penalty / batches, found[1]
        return found + penalty / batches

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.count:
            logs[PENALTY] = float(self.sum) / self.count
            logs["loss"] -= logs[PENALTY]
            self.sum, self.count = 0.0, 0
        super().log(logs, start_time)

    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"ewc": {"rows": self.penalty.rows}}

    sum: Any  # of the penalties since the last log, and their count
    count: int
    current_gradient_accumulation_steps: int


class Penalty:
    """weight / 2 * sum of F * drift^2. `drifts` compute how far each weight is from the base; `fisher` are its F."""

    def __init__(
        self, drifts: Sequence[Callable[[], Tensor]], fisher: Sequence[Tensor], weight: float, rows: int
    ) -> None:
        self.drifts, self.fisher, self.weight, self.rows = drifts, fisher, weight, rows

    def __call__(self) -> Tensor:
        parts = [(f * drift().float().square()).sum() for f, drift in zip(self.fisher, self.drifts, strict=True)]
        return self.weight / 2 * torch.stack(parts).sum()


def penalty_of(ewc: EWC, trainer: Any, rows: Any) -> Penalty:
    """The penalty for a trainer whose model is as it begins. `rows` are tokenized old rows, of which the first
    `ewc.rows` count. It takes the memory of the weights in float32, and without an adapter that of a copy of them."""
    model, rows = trainer.model, rows.select(range(min(ewc.rows, len(rows))))
    if isinstance(model, PeftModel):
        layers = [part for part in model.modules() if isinstance(part, LoraLayer) and ADAPTER in part.lora_A]
        weights = [layer.get_base_layer().weight for layer in layers]
        drifts: list[Callable[[], Tensor]] = [_Added(layer) for layer in layers]
    else:
        weights = [part for part in model.parameters() if part.requires_grad]
        drifts = [_Moved(part) for part in weights]
    return Penalty(drifts, fisher(model, weights, _batches(trainer, rows)), ewc.weight, len(rows))


class _Added:
    """What a LoRA layer adds to its weight: [out, in]."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self) -> Tensor:
        found: Tensor = self.layer.get_delta_weight(ADAPTER)
        return found


class _Moved:
    """How far a weight is from where it was."""

    def __init__(self, part: Tensor) -> None:
        self.part, self.start = part, part.detach().clone()

    def __call__(self) -> Tensor:
        return self.part - self.start


def fisher(model: Any, weights: Sequence[Tensor], batches: Iterator[dict[str, Tensor]]) -> list[Tensor]:
    """The diagonal of the empirical Fisher information of each weight, in its shape and in float32: the mean of squared
    gradients over batches, one row each. An adapter is left out meanwhile."""
    found, count = [torch.zeros_like(part, dtype=torch.float32) for part in weights], 0
    with _trained(model, weights), model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():
        for batch in batches:
            grads = torch.autograd.grad(model(**batch).loss, list(weights), allow_unused=True)
            for total, grad in zip(found, grads, strict=True):
                if grad is not None:
                    total += grad.float().square()
            count += 1
    return [total / max(count, 1) for total in found]


@contextmanager
def _trained(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """Gradients reach these weights, and nothing is dropped. What is trained afterwards is what was before: PEFT would
    train all of an adapter that it has left out."""
    training, before = model.training, [(part, part.requires_grad) for part in model.parameters()]
    model.eval()
    for part in weights:
        part.requires_grad_(True)
    try:
        yield
    finally:
        model.train(training)
        for part, needed in before:
            part.requires_grad_(needed)


def _batches(trainer: Any, rows: Any) -> Iterator[dict[str, Tensor]]:
    """One row each, on the model's device. A row without answer tokens has no loss."""
    device = trainer.args.device
    for row in rows:
        if any(label != IGNORED for label in row["labels"][1:]):
            batch = dict(trainer.eval_collator([row]))
            yield {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "labels")}


def old_rows(experiment: Experiment, tokenizer: Any) -> Prepared:
    """The rows of `method.ewc.data`, tokenized as those of data.train. Raises DataError for a file that cannot be
    used."""
    method = experiment.method
    assert isinstance(method, SFT)
    assert method.ewc is not None
    alone = {"train": method.ewc.data, "eval": None, "eval_split": 0.0, "group": None, "replay": None, "packing": False}
    try:
        return prepare(experiment.data.model_copy(update=alone), method.rows, tokenizer)
    except DataError as error:
        raise DataError(f"method.ewc.data: {str(error).replace('data.train: ', '')}") from error
