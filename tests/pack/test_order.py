"""The order of the data: transformers' Trainer's and accelerate's own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from ftlib.config.train import TrainSection
from ftlib.pack.order import Order


class Numbers(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return {"x": torch.tensor([float(number)])}


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.ones(1)), []

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append([int(number) for number in x.flatten()])
        return {"loss": (self.weight * x).mean()}


@pytest.mark.parametrize(("rows", "batch", "accumulated", "epochs"), [(10, 4, 1, 3), (11, 2, 3, 2.5), (7, 8, 2, 2)])
def test_batches_are_those_of_the_trainer(
    rows: int, batch: int, accumulated: int, epochs: float, tmp_path: Path
) -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulated,
        num_train_epochs=epochs,
        seed=5,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        remove_unused_columns=False,
    )
    model = Model()
    trainer = Trainer(model=model, args=arguments, train_dataset=Numbers(rows))
    trainer.train()
    section = TrainSection(
        per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated, num_train_epochs=epochs, seed=5
    )
    order = Order(rows, section)
    assert order.steps == trainer.state.global_step
    assert [rows for step in range(order.steps) for rows in order.batches(step)] == model.seen
    assert math.isclose(order.epoch(order.steps), trainer.state.epoch, rel_tol=1e-6)


def test_rows_that_are_met_are_those_of_the_steps() -> None:
    few = TrainSection(per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=3, seed=5)
    order = Order(40, few)
    assert order.met() == sorted(row for step in range(3) for batch in order.batches(step) for row in batch)
    assert len(order.met()) == 12
    assert Order(10, few).met() == list(range(10))
