"""Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384): two models learn the labels, and from each other.

The student is what the trial trains and leaves. The peer is the teacher of other kinds, and is trained beside it, whole
and at the same rate, in the same batches. Each has its own gradient norm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftlib.config import Distill
from ftlib.methods.distillation.losses import softened_kl
from ftlib.methods.distillation.targets import Batch, Reader, Task

PEER = "peer.safetensors"  # in a checkpoint, beside the student's weights


class Mutual:
    """What the student learns from its peer: KL(peer || student). `of_peer` is the peer's own loss of the latest batch:
    `alpha` of KL(student || peer), and the labels have the rest. Sums over positions."""

    needs_hidden = False

    def __init__(self, method: Distill, peer: PreTrainedModel, reader: Reader, task: Task) -> None:
        self.method, self.peer, self.reader, self.task = method, peer, reader, task
        self.of_peer: Tensor = torch.zeros(())

    def loss(self, outputs: Any, logits: Tensor, batch: Batch) -> Tensor:
        method, labels = self.method, batch["labels"]
        theirs = self.task.logits(self.peer(**self.reader(batch)).logits, labels)
        taught = softened_kl(theirs, logits.detach().float().log_softmax(-1), None, method.temperature).sum()
        labelled = cross_entropy(theirs.float(), self.task.labels(labels), reduction="sum")
        self.of_peer = method.alpha * taught + (1 - method.alpha) * labelled
        return softened_kl(logits, theirs.detach().float().log_softmax(-1), None, method.temperature).sum()


class PeerSteps(TrainerCallback):
    """What a trainer does for its own model, done for the peer: gradients begin at zero and are clipped, weights go
    into checkpoints and come back. The optimizer is the trainer's, and has the peer's weights in groups of their
    own."""

    def __init__(self, peer: PreTrainedModel, checkpoint: Path | None) -> None:
        self.peer, self.checkpoint = peer, checkpoint

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.peer.train()
        if state.global_step and self.checkpoint is not None:
            self.peer.load_state_dict(load_file(self.checkpoint / PEER), strict=False)  # tied weights are there once

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.peer.zero_grad()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.peer.parameters(), args.max_grad_norm)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        weights = {name: part.detach().cpu().contiguous() for name, part in self.peer.named_parameters()}
        save_file(weights, Path(args.output_dir) / f"checkpoint-{state.global_step}" / PEER)


def add_weights(optimizer: torch.optim.Optimizer, decayed: set[str], peer: PreTrainedModel, decay: float) -> None:
    """The peer's weights, in two groups: those with the names `decayed` have weight decay, the others none."""
    named = dict(peer.named_parameters())
    for names, amount in ((named.keys() & decayed, decay), (named.keys() - decayed, 0.0)):
        if names:
            optimizer.add_param_group({"params": [named[name] for name in sorted(names)], "weight_decay": amount})
