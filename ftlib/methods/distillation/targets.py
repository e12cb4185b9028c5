"""What the teacher says of every row, computed once a sweep and read from disk by every trial and every worker.

<FTLIB_HOME>/cache/teacher/<hash>/
  values.npy   log-probabilities, one line a position: of `top_k` tokens and of the rest, or of the whole vocabulary
  tokens.npy   the ids of those tokens (not there for the whole vocabulary)
  starts.npy   the first position of each row, and at the end their number

A position is one that predicts a labelled token; of a classifier, a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftlib.data.tokenize import IGNORED
from ftlib.methods.distillation.losses import with_rest

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Reader:
    """How a teacher reads the student's rows: their ids as they are, or, with a tokenizer of its own, their text."""

    student: PreTrainedTokenizerBase
    teacher: PreTrainedTokenizerBase | None = None

    def __call__(self, batch: Batch) -> Batch:
        if self.teacher is None:
            return {name: batch[name] for name in ("input_ids", "attention_mask")}
        ids, mask = batch["input_ids"], batch["attention_mask"].bool()
        texts = self.student.batch_decode(
            [row[kept] for row, kept in zip(ids, mask, strict=True)], skip_special_tokens=True
        )
        read = self.teacher(texts, padding=True, padding_side="right", truncation=True, return_tensors="pt")
        return {name: read[name].to(ids.device) for name in ("input_ids", "attention_mask")}


@dataclass(frozen=True)
class Task:
    """Where a model's logits count. `classes` are their columns: the tokens that both models have, or the classes in
    the data's order."""

    classify: bool
    classes: tuple[int, ...] | int

    def logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[positions, classes], cut or ordered alike for teacher and student."""
        if not self.classify:
            logits = logits[:, -labels.shape[1] :]  # prompt tuning puts its own tokens in front
            logits = logits[:, :-1][labels[:, 1:] != IGNORED]
        return logits[:, : self.classes] if isinstance(self.classes, int) else logits[:, list(self.classes)]

    def labels(self, labels: Tensor) -> Tensor:
        """The number of the right class at each position: [positions]."""
        return labels if self.classify else labels[:, 1:][labels[:, 1:] != IGNORED]

    def positions(self, rows: Any) -> np.ndarray:
        """The number of positions of each row of a data set."""
        if self.classify:
            return np.ones(len(rows), dtype=np.int64)
        return np.array([sum(label != IGNORED for label in labels[1:]) for labels in rows["labels"]], dtype=np.int64)


@dataclass(frozen=True)
class Targets:
    """The lines of some rows, as tensors in the order of the rows."""

    values: np.ndarray
    tokens: np.ndarray | None
    starts: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Targets:
        there = (folder / "tokens.npy").exists()
        tokens = np.load(folder / "tokens.npy", mmap_mode="r") if there else None
        return cls(np.load(folder / "values.npy", mmap_mode="r"), tokens, np.load(folder / "starts.npy"))

    def of(self, rows: list[int]) -> Batch:
        def lines(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.concatenate([array[self.starts[row] : self.starts[row + 1]] for row in rows]))

        found = {"teacher_values": lines(self.values)}
        if self.tokens is not None:
            found["teacher_tokens"] = lines(self.tokens).long()
        return found


@torch.no_grad()  # type: ignore[untyped-decorator]
def targets_key(teacher: dict[str, Any], data: str, top_k: int | None, classes: int) -> dict[str, Any]:
    """What a teacher's lines depend on, whoever trains by them: a trial alone or a pack."""
    return {"targets": teacher, "data": data, "top_k": top_k, "classes": classes}


def write_targets(
    folder: Path,
    model: PreTrainedModel,
    task: Task,
    batches: Iterator[tuple[Batch, Batch]],
    top_k: int | None,
    counts: np.ndarray,
    order: Sequence[int] | None = None,
) -> None:
    """Runs the teacher over (what it reads, the student's batch). `counts` are the positions of each row, `order` the
    numbers of the rows as the batches have them: rows of like lengths side by side need little padding."""
    starts = np.concatenate([[0], counts.cumsum()])
    np.save(folder / "starts.npy", starts)
    rows = range(len(counts)) if order is None else order
    lines_of = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in rows])
    values: np.ndarray | None = None
    tokens: np.ndarray | None = None
    done = 0
    for read, batch in batches:
        log_probs = task.logits(model(**read).logits, batch["labels"]).float().log_softmax(-1)
        k = top_k if top_k and top_k < log_probs.shape[-1] else None
        if k is not None:
            chosen = log_probs.topk(k).indices
            log_probs = with_rest(log_probs, chosen)
        if values is None:
            exact = model.dtype == torch.float32  # half a float holds all that a half-precision teacher has to say
            shape = (int(starts[-1]), log_probs.shape[-1])
            values = _file(folder / "values.npy", np.float32 if exact else np.float16, shape)
            tokens = None if k is None else _file(folder / "tokens.npy", np.int32, (shape[0], k))
        lines = lines_of[done : (done := done + len(log_probs))]
        values[lines] = log_probs.cpu().numpy()
        if tokens is not None:
            tokens[lines] = chosen.cpu().numpy()
    assert done == starts[-1]


def _file(path: Path, dtype: Any, shape: tuple[int, int]) -> np.ndarray:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
