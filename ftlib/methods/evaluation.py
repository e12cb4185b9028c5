"""What stands before a trainer of TRL's or transformers', so that its evaluations are made row by row (`table`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from ftlib.methods.table import PARTS_OF, Table, joined, numbers_of, on_cpu
from ftlib.methods.trl_private import OpenOnline, OpenTrainer

More = Callable[[Any], dict[str, Any]]


def _more(trainer: Any) -> dict[str, Any]:
    """What `trainer.more` says of its model, computed in the precision of its training."""
    if trainer.more is None:
        return {}
    with torch.no_grad(), trainer.compute_loss_context_manager():
        return dict(trainer.more(trainer.accelerator.unwrap_model(trainer.model)))


class ByRows(OpenTrainer):
    """A trainer says of a batch what each of its rows says (`score`), and of the whole table what it means (`summary`).

    Each worker takes every n-th row. So that all make as many forward passes, the last ones may repeat a row, which is
    not counted.
    """

    args: Any
    accelerator: Any
    eval_dataset: Any
    eval_collator: Callable[[list[Any]], Any] | None = None  # where it is another than in training
    metric: str | None = None  # what trials are compared by: it is reported in parts too
    more: More | None = None  # numbers of the model besides those of its rows
    table: Table | None = None  # the latest evaluation's

    def score(self, model: Any, inputs: dict[str, Any]) -> Table:
        """What the rows of a batch say: a column for each name, each of shape [rows of the batch]."""
        raise NotImplementedError

    def summary(self, table: Table) -> dict[str, float]:
        """The numbers of an evaluation, without the prefix `eval_`."""
        raise NotImplementedError

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        rows = self.used_columns(self.eval_dataset if eval_dataset is None else eval_dataset, "Evaluation")
        workers = self.args.world_size
        self._numbers = range(self.args.process_index, -(-len(rows) // workers) * workers, workers)
        self._rows = len(rows)
        return DataLoader(
            rows,
            batch_size=self.args.eval_batch_size,
            sampler=[number % len(rows) for number in self._numbers],
            collate_fn=self.eval_collator or self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> tuple[None, None, None]:
        with torch.no_grad(), self.compute_loss_context_manager():
            self._tables.append(on_cpu(self.score(model, self.ready(inputs))))
        return None, None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._tables: list[Table] = []
        output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
        self.table = self._whole()
        output.metrics.update(numbers_of(self.table, self.summary, self.metric))
        output.metrics.update(_more(self))
        return output

    def _whole(self) -> Table:
        """The lines of all workers in one table, in the order of the data."""
        shares = gather_object([(self._numbers, joined(self._tables))])
        numbers = torch.tensor([number for share, _ in shares for number in share])
        order = numbers.argsort()[: self._rows]  # the numbers of repeated rows are the highest
        return {name: column[order] for name, column in joined([table for _, table in shares]).items()}

    data_collator: Any
    compute_loss_context_manager: Any


class ByCompletions(OpenOnline):
    """Before TRL's online trainers: an evaluation's rewards are means over its completions, each counted once.

    TRL's are means of batches' means, with the rows that fill up the workers' last batches counted twice. Its other
    numbers are weighed by the completions of their batch.
    """

    accelerator: Any
    model: Any
    metric: str | None = None
    more: More | None = None

    def has_rewarded(self, rewards: Tensor) -> None:
        if not self.model.training:
            self._rewards.append(rewards.cpu())

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._rewards: list[Tensor] = []
        output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
        if self._rewards:
            told: dict[str, Any] = self.eval_numbers
            sizes = [len(part) for part in self._rewards]
            for name, values in told.items():
                if len(values) == len(sizes):
                    told[name] = [_weighed(values, sizes)]
            rewards = torch.cat(self._rewards)[: len(self.eval_dataset) * self.num_generations_eval]
            told.update({name: [value] for name, value in self._reward_numbers(rewards).items()})
            found = numbers_of({"rewards": rewards}, lambda part: self._reward_numbers(part["rewards"]), self.metric)
            output.metrics.update({name: value for name, value in found.items() if name.endswith(PARTS_OF)})
        output.metrics.update(_more(self))
        return output

    def _reward_numbers(self, rewards: Tensor) -> dict[str, float]:
        """The means and deviations of rewards, by TRL's names. A function may give no reward to a completion."""
        weighed = (rewards * self.reward_weights.cpu()).nansum(1)[~rewards.isnan().all(1)]
        found = {"reward": float(weighed.mean()), "reward_std": float(weighed.std())}
        for name, column in zip(self.reward_func_names, rewards.unbind(1), strict=True):
            given = column[~column.isnan()]
            found |= {f"rewards/{name}/mean": float(given.mean()), f"rewards/{name}/std": float(given.std())}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    eval_dataset: Any
    num_generations_eval: int
    reward_func_names: list[str]
    reward_weights: Tensor


def _weighed(values: list[float], sizes: list[int]) -> float:
    """The mean of the batches' numbers, weighed by their sizes. Batches without a number (NaN) are left out."""
    pairs = [(value, size) for value, size in zip(values, sizes, strict=True) if value == value]
    return sum(value * size for value, size in pairs) / sum(size for _, size in pairs) if pairs else float("nan")
