"""The trainers of SFT and of classification with a teacher's loss beside the labels': alpha of the one, the rest of the
other. They are evaluated as without a teacher, so that students compare with and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from ftlib.methods.classify import Classifier
from ftlib.methods.distillation.objectives import TEACHERS, Projections
from ftlib.methods.distillation.peer import PeerSteps, add_weights
from ftlib.methods.distillation.targets import Targets, Task
from ftlib.methods.token_trainer import AnswerTrainer
from ftlib.methods.trl_private import DistillCard, OpenTrainer

ROW = "row"  # the column of a training row's number
PROJECTIONS = "projections.safetensors"  # in a checkpoint, beside the student's weights


class Collator:
    """Another collator's batches, with the teacher's lines for the rows that have a number."""

    def __init__(self, collator: Any, targets: Targets | None) -> None:
        self.collator, self.targets = collator, targets

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        plain = [{name: value for name, value in example.items() if name != ROW} for example in examples]
        batch = dict(self.collator(plain))
        if self.targets is not None and ROW in examples[0]:
            batch |= self.targets.of([example[ROW] for example in examples])
        return batch


class _Distiller(OpenTrainer):
    """What both trainers do differently from their parents. `learn_from` comes before the first step."""

    def learn_from(self, objective: Any, alpha: float, task: Task, targets: Targets | None) -> None:
        self.objective, self.alpha, self.task = objective, alpha, task
        self.sums: Any = (
            0.0  # since the last log: of the teacher's loss, of the labels', of positions, and of the peer's loss
        )
        self.data_collator: Any = Collator(self.data_collator, targets)
        self.args.remove_unused_columns = False  # ours are all used, the row's number too
        if targets is not None:
            self.train_dataset: Any = self.train_dataset.add_column(ROW, range(len(self.train_dataset)))

    def learn_beside(self, peer: Any, checkpoint: Path) -> None:
        """Trains a peer too, by the objective's `of_peer`. It goes on from the checkpoint where the student does."""
        self.peer = peer.to(self.args.device)
        self.add_callback(PeerSteps(peer, checkpoint))

    def create_optimizer(self, model: Any = None) -> Any:
        """With the peer's weights, where there is one."""
        known = self.optimizer is not None
        made = super().create_optimizer(model)  # type: ignore[misc]
        if self.peer is not None and not known:
            add_weights(made, set(self.get_decay_parameter_names(self.peer)), self.peer, self.args.weight_decay)
        return made

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Both losses, over the positions of all accumulated batches and all workers, as in transformers."""
        hidden = {"output_hidden_states": True} if self.objective.needs_hidden else {}
        student = {name: value for name, value in inputs.items() if name not in (*TEACHERS, "labels")}
        outputs = model(**student, **hidden)
        logits = self.task.logits(outputs["logits"], inputs["labels"])
        taught = self.objective.loss(outputs, logits, inputs)
        labelled = cross_entropy(logits.float(), self.task.labels(inputs["labels"]), reduction="sum")
        loss = self.alpha * taught + (1 - self.alpha) * labelled
        of_peer = getattr(self.objective, "of_peer", torch.zeros_like(loss))
        self.sums = self.sums + torch.stack([taught, labelled, taught.new_tensor(len(logits)), of_peer]).detach()
        loss = loss + of_peer
        if num_items_in_batch is None:
            return loss / max(len(logits), 1)
        workers = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return loss / num_items_in_batch * workers  # the gradients of the workers are averaged, not added

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and torch.is_tensor(self.sums):
            taught, labelled, _, of_peer = (self.sums / self.sums[2].clamp(min=1)).tolist()
            logs |= {"distill_loss": taught, "label_loss": labelled}
            if self.peer is not None:  # `loss` is the student's alone
                logs |= {"loss": self.alpha * taught + (1 - self.alpha) * labelled, "peer_loss": of_peer}
            self.sums = 0.0
        super().log(logs, start_time)  # type: ignore[misc]

    # --- a learned projection is saved to go on with, and not as a part of the student ----------------------------

    def save_weights(self, output_dir: str | None, state_dict: dict[str, Tensor] | None) -> None:
        if not hasattr(self.model, Projections.NAME):
            super().save_weights(output_dir, state_dict)
            return
        whole = self.model.state_dict() if state_dict is None else state_dict
        ours = {name: part for name, part in whole.items() if name.startswith(Projections.NAME)}
        super().save_weights(output_dir, {name: part for name, part in whole.items() if name not in ours})
        if self.args.should_save:
            save_file(ours, Path(output_dir or self.args.output_dir) / PROJECTIONS)

    def load_weights(self, checkpoint: str, model: Any) -> None:
        super().load_weights(checkpoint, model)
        if hasattr(self.model, Projections.NAME):
            self.model.load_state_dict(load_file(Path(checkpoint) / PROJECTIONS), strict=False)

    peer: Any = None
    model: Any
    args: Any
    accelerator: Any
    optimizer: Any
    add_callback: Any
    get_decay_parameter_names: Any


class LanguageDistiller(DistillCard, _Distiller, AnswerTrainer):
    """A student that writes."""


class ClassifyDistiller(_Distiller, Classifier):
    """A student that classifies."""
