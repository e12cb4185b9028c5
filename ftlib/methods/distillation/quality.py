"""How good the teacher is on the evaluation rows, measured once, and what of it the student kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from ftlib.files.atomic import write_json
from ftlib.methods.distillation.targets import Batch, Task
from ftlib.models.base import count_parameters


def key(teacher: dict[str, Any], data_hash: str, batch: int, rows: str) -> dict[str, Any]:
    """What a teacher's quality depends on; the batch is of the forward pass whose time is taken."""
    return {"quality": teacher, "data": data_hash, "batch": batch, "rows": rows, "mean": "positions"}


@torch.no_grad()  # type: ignore[untyped-decorator]
def write_quality(
    folder: Path, model: PreTrainedModel, task: Task, batches: Iterator[tuple[Batch, Batch]], reads_alike: bool
) -> None:
    """The teacher's loss and accuracy over evaluation batches: means over positions, as a student's."""
    losses, right, positions = 0.0, 0, 0
    seconds: float | None = None
    for read, batch in batches:
        logits = model(**read).logits
        logits, labels = task.logits(logits, batch["labels"]).float(), task.labels(batch["labels"])
        losses += cross_entropy(logits, labels, reduction="sum").item()
        right, positions = right + int((logits.argmax(-1) == labels).sum()), positions + len(labels)
        seconds = forward_seconds(model, read) if seconds is None else seconds
    write_json(
        folder / "quality.json",
        {
            "eval_loss": losses / positions,
            "eval_accuracy": right / positions,
            "parameters": count_parameters(model)[0],
            "forward_seconds": seconds if reads_alike else None,
            "device": model.device.type,
            "threads": torch.get_num_threads(),
        },
    )


@torch.no_grad()  # type: ignore[untyped-decorator]
def forward_seconds(model: Any, batch: Batch, repeats: int = 3) -> float:
    """The best of some forward passes over a batch: the others were disturbed."""
    training, taken = model.training, []
    model.eval()
    for _ in range(repeats):
        started = time.perf_counter()
        model(**{name: batch[name] for name in ("input_ids", "attention_mask")})
        if batch["input_ids"].is_cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    model.train(training)
    return min(taken)


def retained(
    quality: dict[str, Any], metrics: dict[str, Any], student: Any, classify: bool, batch: Callable[[], Batch] | None
) -> dict[str, Any]:
    """The teacher's and the student's numbers side by side.

    `retained` is the student's share of the teacher's accuracy; of a language model, of the probability that the
    teacher gives the right token (the geometric mean over tokens: exp of the difference of the losses).
    """
    facts = {f"teacher_{name}": quality.get(name) for name in ("eval_loss", "eval_accuracy")}
    facts["student_eval_loss"] = loss = metrics.get("eval_loss")
    accuracy = metrics.get("eval_accuracy", metrics.get("eval_mean_token_accuracy"))
    facts["student_eval_accuracy"] = accuracy
    if classify and quality.get("eval_accuracy") and accuracy is not None:
        facts["retained"] = accuracy / quality["eval_accuracy"]
    elif not classify and quality.get("eval_loss") is not None and loss is not None:
        facts["retained"] = math.exp(quality["eval_loss"] - loss)
    parameters = count_parameters(student)[0]
    if quality.get("parameters"):
        facts |= {"teacher_parameters": quality["parameters"], "parameter_ratio": parameters / quality["parameters"]}
    here = next(student.parameters()).device.type, torch.get_num_threads()
    if batch and quality.get("forward_seconds") and here == (quality["device"], quality["threads"]):
        facts["forward_speedup"] = quality["forward_seconds"] / forward_seconds(student, batch())
    return facts


def read_quality(folder: Path) -> dict[str, Any]:
    """What `write_quality` has written."""
    quality: dict[str, Any] = json.loads((folder / "quality.json").read_text())
    return quality
