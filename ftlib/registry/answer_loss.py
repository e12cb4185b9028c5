"""The loss of a model on the answers of some rows: the number by which two versions of a name are compared.

Of a language model it is the mean negative log-likelihood of an answer's token, of a classifier the cross-entropy of a
row, of preferences -log sigmoid of how much more the chosen answer is worth than the rejected one. Rows go one by one:
padding would round two versions differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from ftlib.config import Experiment, Rows
from ftlib.data import Prepared, prepare
from ftlib.data.tokenize import IGNORED
from ftlib.errors import DataError, FtlibError, InputError

# What a file is read as, where the method's own rows have no answer that can be scored: GRPO's prompts come with a
# right answer, and of judged answers a better and a worse one are needed.
READ_AS: dict[Rows, Rows] = {"prompts": "answers", "judged": "pairs"}


@dataclass(frozen=True)
class Loss:
    """`counted` is how many tokens (or, of classes and preferences, rows) it is a sum over; `hash` is equal for two
    losses on the same tokens."""

    total: float
    counted: int
    rows: int
    hash: str

    def beside(self, other: Loss) -> tuple[float, float]:
        """This one and the other as means that can be compared: a token's, or an answer's where the tokens differ."""
        if self.hash == other.hash:
            return self.total / self.counted, other.total / other.counted
        return self.total / self.rows, other.total / other.rows


def read_rows(file: Path, experiment: Experiment, tokenizer: Any) -> Prepared:
    """The rows of a file, as an evaluation file of the experiment would be read. Raises DataError when it cannot be."""
    data = experiment.data.model_copy(update={"train": str(file), "eval": str(file), "replay": None})
    rows = experiment.method.rows
    try:
        return prepare(data, READ_AS.get(rows, rows), tokenizer)
    except DataError as error:
        raise DataError(str(error).replace("data.train:", f"{file}:").replace("data.eval:", f"{file}:")) from error


def loss_on(data: Prepared, model: Any, labels: Sequence[str], owner: str) -> Loss:
    """The loss of a model in evaluation mode. `labels` are its classes in order, `owner` its name in messages.

    Raises InputError for a label that it does not know, and FtlibError when the loss is no number.
    """
    loss_of = _classes(data, labels, owner) if data.report.rows == "labelled" else LOSSES[data.report.rows]
    total, counted = 0.0, 0
    with torch.inference_mode():
        for row in data.eval:
            loss, count = loss_of(model, row)
            total, counted = total + loss, counted + count
    if not math.isfinite(total):
        raise FtlibError(f"{owner}: its loss on a row of the file became {total}: choose another trial.")
    return Loss(total, counted, len(data.eval), data.hash)


def _answer(model: Any, row: Any) -> tuple[float, int]:
    """Summed over the tokens of the answers, and how many those are."""
    logits = _forward(model, row["input_ids"])[0]
    logits = logits[-len(row["input_ids"]) : -1]  # an adapter's virtual tokens stand before the row's own
    targets = torch.tensor(row["labels"][1:], device=logits.device)
    loss = cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    return float(loss), int((targets != IGNORED).sum())


def _preference(model: Any, row: Any) -> tuple[float, int]:
    """An answer is worth its score by a reward model, or its log-probability."""
    worth = []
    for side in (row["chosen_ids"], row["rejected_ids"]):
        ids = row["prompt_ids"] + side
        if getattr(model.config, "num_labels", 0) == 1:
            worth.append(float(_forward(model, ids)))
        else:
            worth.append(-_answer(model, {"input_ids": ids, "labels": [IGNORED] * len(row["prompt_ids"]) + side})[0])
    return float(-logsigmoid(torch.tensor(worth[0] - worth[1]))), 1


def _classes(data: Prepared, labels: Sequence[str], owner: str) -> Callable[[Any, Any], tuple[float, int]]:
    """The file numbers the classes that it has; the model all that it was trained on."""
    unknown = sorted(set(data.report.labels) - set(labels))
    if unknown:
        raise InputError(
            f"the file has the label '{unknown[0]}', and {owner} knows {', '.join(labels) or 'none by name'}."
        )
    numbers = [list(labels).index(label) for label in data.report.labels]

    def loss_of(model: Any, row: Any) -> tuple[float, int]:
        logits = _forward(model, row["input_ids"])
        return float(cross_entropy(logits, torch.tensor([numbers[row["labels"]]], device=logits.device))), 1

    return loss_of


def _forward(model: Any, ids: list[int]) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device)).logits
    return logits.float()


LOSSES: dict[str, Callable[[Any, Any], tuple[float, int]]] = {
    "answers": _answer,
    "text": _answer,
    "pairs": _preference,
}
