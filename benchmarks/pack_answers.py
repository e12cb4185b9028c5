"""What a pack saves where trials write answers: all trials at once through the bank, against one after another.

    python benchmarks/pack_answers.py RUN [--rows 100] [--threads 2] [--ways 16]

RUN is a finished sweep of LoRA adapters that is compared by a task (experiments/chain/sentiment.yaml). Three ways to
the same answers, each with all threads: the pack's; each adapter alone by ftlib; each adapter alone by transformers'
`generate` in batches, its best size of those tried. Loading a model is in no time. Each way has answered some questions
before it is timed, the pack all: a machine may take long over memory that a process touches for the first time. What
the pack takes the first time is printed too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ftlib.config import Experiment
from ftlib.data import prepare
from ftlib.evaluation import answers as writing
from ftlib.evaluation.answers import answers, ends_of
from ftlib.models.adapter_files import adapter_config
from ftlib.models.base import load_model, load_tokenizer
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.task_answers import TaskAnswers
from ftlib.registry.agreement import beside_base
from ftlib.run.context import Setting
from ftlib.run.directory import Run

WAYS = ("ftlib", "16", "64")  # ftlib's own, and the batches that transformers' loop is tried with
FIRST = 16  # questions that each way answers before it is timed


def main() -> None:
    """Prints the three times and their ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help="ftlib, or the size of a batch of `generate`")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    run = Run.open(str(given.run))
    tree = run.resolved["experiment"]
    for task in tree["evaluation"]["tasks"]:
        task["trial_rows"] = given.rows
    experiment = Experiment.parse(tree)
    metric, _ = experiment.objective
    adapters = [trial.weights for trial in run.trials() if trial.weights is not None and trial.state != "failed"]
    ranks = [adapter_config("an adapter", folder)["r"] for folder in adapters]
    data = prepare(experiment.data, experiment.method.rows, load_tokenizer(experiment.model))
    base = FrozenBase(experiment, data, len(adapters), max(ranks))
    for slot, (folder, rank) in enumerate(zip(adapters, ranks, strict=True)):
        base.bank.configure(slot, rank, adapter_config("an adapter", folder)["lora_alpha"] / rank)
        base.bank.load_peft(slot, load_file(folder / "adapter_model.safetensors"))
    packed = TaskAnswers(base, Setting(str(run.path), str(data.path), tree, metric))
    (task,) = packed.tasks
    print(f"{len(adapters)} adapters, {len(task.questions)} questions, {metric}", flush=True)
    found: list[float] = []
    first = timed(lambda: packed.numbers(range(len(adapters))))
    seconds = {"pack": timed(lambda: found.extend(row[metric] for row in packed.numbers(range(len(adapters)))))}
    print(f"the pack: {seconds['pack']:.1f} s; the first time {first:.1f} s", flush=True)
    base.bank.detach()
    del base, packed.base
    seconds |= alone(experiment, adapters, task, found, given.ways)
    for name, taken in seconds.items():
        print(f"{name:40s} {taken:8.1f} s   the pack takes {seconds['pack'] / taken:.2f} of it")


def alone(
    experiment: Experiment, adapters: list[Path], task: Any, found: list[float], ways: list[str]
) -> dict[str, float]:
    """Each adapter alone: by ftlib, and by `generate`."""
    seconds: dict[str, float] = dict.fromkeys(map(named, ways), 0.0)
    for folder, expected in zip(adapters, found, strict=True):
        model = beside_base(load_model(experiment.model).eval(), folder, "an adapter")
        for way in ways:
            work = by_ftlib(model, task, expected) if way == "ftlib" else by_generate(model, task, int(way))
            work(FIRST)
            seconds[named(way)] += timed(partial(work, len(task.questions)))
    return seconds


def named(way: str) -> str:
    return "alone, ftlib" if way == "ftlib" else f"alone, generate, batches of {way}"


def by_ftlib(model: Any, task: Any, expected: float) -> Callable[[int], None]:
    """Answers so many questions; all of them as the pack has."""

    def work(count: int) -> None:
        said = answers(model, task.writer, task.questions[:count])
        assert count < len(task.questions) or task.numbers_of(said)[task.metric] == expected

    return work


def by_generate(model: Any, task: Any, size: int) -> Callable[[int], None]:
    def work(count: int) -> None:
        writing.PADDED_ROWS = size
        rows = task.writer.rows(task.questions[:count])
        writing._generate(model, task.writer, rows, ends_of(model, task.writer.tokenizer))

    return work


def timed(work: Any) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
