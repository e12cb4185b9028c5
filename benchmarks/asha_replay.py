"""ASHA over recorded learning curves: how many steps it saves, and how often it keeps the best trial.

    python benchmarks/asha_replay.py record NAME BASE DATA      96 LoRA trials x 120 steps in a pack -> curves/NAME.json
    python benchmarks/asha_replay.py replay [--replays 200]    ftlib's own scheduler over every set of curves

A replay draws 32 of the recorded trials in random order; 16 train at once, as in a pack, and the next takes the place
of one that was stopped. "Kept": the best of the 32 (by its last evaluation) was trained to its end. "Within 1 %": the
best trial that ended is at most 1 % worse. The default rungs of `sweep.scheduler` are those that this supports.
`curves/docstrings.json` was recorded by this script as it was at commit e3f1de8, with an evaluation every five steps.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CURVES = Path(__file__).with_name("curves")
TRIALS, STEPS = 96, 120
MARKS = (4, 5, 7, 8, 10, 13, 15, 20, 30, 40, 60, 90)  # evaluated besides the end: wherever a rung may be tried


def record(name: str, base: str, data: str) -> None:
    import torch

    from ftlib.config import Experiment
    from ftlib.data import prepare
    from ftlib.models.base import load_tokenizer
    from ftlib.pack.engine import Pack
    from ftlib.pack.frozen_base import FrozenBase
    from ftlib.run.context import Rungs, Setting
    from ftlib.run.directory import Run

    torch.set_num_threads(1)
    tree = {
        "name": "curves",
        "model": {"name_or_path": base},
        "data": {"train": data, "max_length": 64, "eval_split": 0.05},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 8, "lora_alpha": 16},
        "train": {
            "max_steps": STEPS,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 32,
            "eval_strategy": "end",
            "logging_steps": 1000,
        },
    }
    experiment = Experiment.parse(tree)
    prepared = prepare(experiment.data, "answers", load_tokenizer(experiment.model))
    run = Run.create(tempfile.mkdtemp(prefix="ftlib-curves-"), "curves", "", {})
    resolved = experiment.to_dict()
    setting = Setting(run=str(run.path), data=str(prepared.path), resolved=resolved, rungs=Rungs("steps", MARKS))
    pack = Pack(FrozenBase(experiment, prepared, slots=8, rank=32), setting)
    waiting = [(f"{number:03d}", point) for number, point in enumerate(draws(random.Random(0)))]
    curves: dict[str, dict[int, float]] = {}
    while waiting or pack.members:
        while waiting and pack.free:
            trial, point = waiting.pop(0)
            curves[trial] = {}
            pack.join(trial, point, lambda row, trial=trial: curves[trial].update({row["step"]: row["eval_loss"]}))
        pack.tick()
        print(f"\r{len(waiting)} trials to go, {len(pack.members)} in the pack ", end="", flush=True)
    steps = [*MARKS, STEPS]
    whole = [[round(curve[step], 5) for step in steps] for curve in curves.values() if list(curve) == steps]
    into = CURVES / f"{name}.json"
    into.write_text(json.dumps({"steps": steps, "curves": whole}).replace("], [", "],\n["))
    print(f"\n{len(whole)} curves of {len(curves)} trials in {into}, the trials in {run.path}")


def draws(draw: random.Random) -> Iterator[dict[str, Any]]:
    """What a user would sweep: rank, alpha, rate over three and a half decades, decay, warm-up, schedule. The order of
    the rows is one for all, as it is in a sweep."""
    for _ in range(TRIALS):
        rank = draw.choice([2, 4, 8, 16, 32])
        yield {
            "adapter.r": rank,
            "adapter.lora_alpha": float(rank * draw.choice([1, 2, 4])),
            "train.learning_rate": 10 ** draw.uniform(-5, -1.5),
            "train.weight_decay": draw.choice([0.0, 0.01, 0.1]),
            "train.warmup_steps": draw.choice([0, 0.03, 0.1]),
            "train.lr_scheduler_type": draw.choice(["cosine", "linear", "constant_with_warmup"]),
        }


@dataclass(eq=False)
class Replayed:
    """A trial as schedulers know it."""

    trial_id: str
    curve: list[float]
    at: int = 0
    status: str = "RUNNING"
    last_result: dict[str, Any] = field(default_factory=dict)


class Pack:
    """What a scheduler asks of Tune, and a pack's clock: all running trials make a step, then those at a rung
    report."""

    def __init__(self, trials: list[Replayed], steps: list[int], marks: tuple[int, ...], scheduler: Any) -> None:
        self.waiting, self.steps, self.scheduler = trials, steps, scheduler
        # A trial can only report what was recorded: at the first recorded step from each mark on.
        self.stops = {steps[bisect_left(steps, mark)] for mark in marks} | {steps[-1]}
        self.running: list[Replayed] = []
        self.ended: list[Replayed] = []
        self.spent = 0

    def get_live_trials(self) -> list[Replayed]:
        return self.running

    def stop_trial(self, trial: Replayed) -> None:
        self.running.remove(trial)

    def run(self, width: int) -> None:
        while self.waiting or self.running:
            while self.waiting and len(self.running) < width:
                self.running.append(self.waiting.pop(0))
                self.scheduler.on_trial_add(self, self.running[-1])
            for trial in self.running:
                trial.at += 1
            self.spent += len(self.running)
            for trial in [runner for runner in self.running if runner.at in self.stops]:
                if trial in self.running:
                    self.report(trial)

    def report(self, trial: Replayed) -> None:
        if trial.at == self.steps[-1]:
            self.running.remove(trial)
            self.ended.append(trial)
            return
        result = {"eval_loss": trial.curve[self.steps.index(trial.at)], "step": trial.at}
        if self.scheduler.on_trial_result(self, trial, result) == "STOP":
            self.running.remove(trial)


RULES = ("pack", "alone", "ray")  # ours in a pack, ours for trials in processes of their own, Ray's ASHAScheduler


def replay(
    name: str, replays: int, section: dict[str, Any], rule: str = "pack", width: int = 16, trials: int = 32
) -> dict[str, float]:
    """Shares and ratios over all replays of a `sweep.scheduler` section."""
    from ftlib.config import Experiment
    from ftlib.sweeps.rungs import rungs_for
    from ftlib.sweeps.schedulers import make_scheduler
    from ftlib.training.estimate import GRACE

    experiment = Experiment.parse(
        {
            "name": "replay",
            "model": {"name_or_path": "m"},
            "data": {"train": "d"},
            "method": {"type": "sft"},
            "adapter": {"type": "lora"},
            "sweep": {
                "space": {"train.learning_rate": [1e-3]},
                "scheduler": {"type": "asha", **section, "unit": "steps"},
            },
        }
    )
    assert experiment.sweep is not None
    recorded = json.loads((CURVES / f"{name}.json").read_text())
    steps, budget = recorded["steps"], recorded["steps"][-1]
    rungs = rungs_for(experiment.sweep.scheduler, 0, budget, grace=(0, GRACE))
    totals = {"times fewer steps": 0.0, "kept": 0.0, "within 1 %": 0.0, "% worse": 0.0, "ended": 0.0}
    for number in range(replays):
        drawn = random.Random(number).sample(recorded["curves"], trials)
        replayed = [Replayed(str(place), curve) for place, curve in enumerate(drawn)]
        best = min(replayed, key=lambda trial: trial.curve[-1])
        scheduler = rays(rungs.marks, section) if rule == "ray" else make_scheduler(experiment, rungs, rule == "pack")
        scheduler.set_search_properties("eval_loss", "min")
        pack = Pack(replayed, steps, rungs.marks, scheduler)
        pack.run(width)
        worse = min((trial.curve[-1] for trial in pack.ended), default=float("inf")) / best.curve[-1] - 1
        totals["times fewer steps"] += trials * budget / pack.spent
        totals["kept"] += best in pack.ended
        totals["within 1 %"] += worse <= 0.01
        totals["% worse"] += worse * 100
        totals["ended"] += len(pack.ended)
    return {key: total / replays for key, total in totals.items()}


def rays(marks: tuple[int, ...], section: dict[str, Any]) -> Any:
    """Ray's own, with no rung after the last mark."""
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr="step",
        grace_period=marks[0],
        reduction_factor=section.get("reduction_factor", 3),
        max_t=marks[-1] + 1,
        stop_last_trials=False,
    )


# factor, first rung as one part in ..., rungs
SECTIONS = (
    (3, 9, 2),
    (3, 27, 3),
    (3, 12, 2),
    (3, 12, 3),
    (3, 8, 2),
    (3, 16, 2),
    (4, 16, 2),
    (4, 12, 2),
    (2, 16, 3),
    (2, 12, 3),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("record", "replay"))
    parser.add_argument("inputs", nargs="*")
    parser.add_argument("--replays", type=int, default=200)
    options = parser.parse_args()
    if options.action == "record":
        record(*options.inputs)
        return

    def show(title: str, *arguments: Any, **keywords: Any) -> None:
        found = replay(name, options.replays, *arguments, **keywords)
        print(f"{title:58s}", ", ".join(f"{key} {value:.3g}" for key, value in found.items()), flush=True)

    for name in options.inputs or sorted(path.stem for path in CURVES.glob("*.json")):
        for factor, part, rungs in SECTIONS:
            section = {"reduction_factor": factor, "first_rung": 1 / part, "rungs": rungs}
            for rule in RULES:
                show(f"{name}, factor {factor}, {rungs} rungs from 1/{part}, {rule}", section, rule)
        for trials, width in ((8, 8), (16, 8), (16, 16), (32, 4), (32, 8), (32, 32), (64, 16)):
            for rule in RULES:
                show(f"{name}, the default, {trials} trials, {width} at once, {rule}", {}, rule, width, trials)


if __name__ == "__main__":
    main()
