"""ASHA over recorded learning curves: how many steps it saves, and how often it keeps the best trial.

    python benchmarks/asha_replay.py record BASE DATA.jsonl       96 LoRA trials x 120 steps in packs -> curves.json
    python benchmarks/asha_replay.py replay [--replays 200]       Ray's own scheduler, as ftlib makes it, over the curves

A replay draws 32 of the recorded trials in random order; 16 train at once, as in a pack, and the next takes the place
of one that was stopped. "Kept": the best of the 32 (by its last evaluation) was trained to its end. "Within 1 %": the
best trial that ended is at most 1 % worse. The default rungs of `sweep.scheduler` are those that this supports.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CURVES = Path(__file__).with_name("curves.json")
STEPS, EVERY, TRIALS = 120, 5, 96


def record(base: str, data: str) -> None:
    import torch

    from ftlib.config import Experiment
    from ftlib.data import prepare
    from ftlib.models import load_tokenizer
    from ftlib.pack.base import FrozenBase
    from ftlib.pack.engine import Pack
    from ftlib.runs import Run
    from ftlib.setting import Setting

    torch.set_num_threads(2)
    tree = {
        "name": "curves",
        "model": {"name_or_path": base},
        "data": {"train": data, "max_length": 96, "max_rows": 3000, "eval_split": 0.02},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 8, "lora_alpha": 16},
        "train": {
            "max_steps": STEPS,
            "per_device_train_batch_size": 4,
            "eval_strategy": "steps",
            "eval_steps": EVERY,
            "logging_steps": 1000,
        },
    }
    experiment = Experiment.parse(tree)
    prepared = prepare(experiment.data, "answers", load_tokenizer(experiment.model))
    run = Run.create(tempfile.mkdtemp(prefix="ftlib-curves-"), "curves", "", {})
    setting = Setting(run=str(run.path), data=str(prepared.path), resolved=experiment.to_dict())
    pack = Pack(FrozenBase(experiment, prepared, 16, 16), setting)
    points = list(draws(random.Random(0)))
    curves: dict[str, dict[str, float]] = {}
    while points or pack.members:
        while points and pack.free:
            number = len(points)
            name, point = f"{number:03d}", points.pop()
            curves[name] = {}
            pack.join(name, point, lambda row, name=name: curves[name].update({str(row["step"]): row["eval_loss"]}))
        pack.tick()
        print(f"\r{len(points)} trials to go, {len(pack.members)} in the pack ", end="", flush=True)
    whole = [list(curve.values()) for curve in curves.values() if len(curve) == STEPS // EVERY]
    rounded = [[round(value, 5) for value in curve] for curve in whole]
    CURVES.write_text(json.dumps({"every": EVERY, "steps": STEPS, "curves": rounded}).replace("], [", "],\n["))
    print(f"\n{len(whole)} curves in {CURVES}")


def draws(draw: random.Random) -> Iterator[dict[str, Any]]:
    """What a user would sweep: rank, alpha, rate over three decades, decay, schedule, seed."""
    for number in range(TRIALS):
        rank = draw.choice([2, 4, 8, 16])
        yield {
            "adapter.r": rank,
            "adapter.lora_alpha": float(rank * draw.choice([1, 2, 4])),
            "train.learning_rate": 10 ** draw.uniform(-4.5, -1.5),
            "train.weight_decay": draw.choice([0.0, 0.1]),
            "train.lr_scheduler_type": draw.choice(["cosine", "linear", "constant"]),
            "train.seed": number,
        }


def replay(replays: int, rungs: int, factor: float, width: int = 16, trials: int = 32) -> dict[str, float]:
    """Shares and ratios over all replays."""
    recorded = json.loads(CURVES.read_text())
    kept = near = saved = 0.0
    for number in range(replays):
        drawn = random.Random(number).sample(recorded["curves"], trials)
        ended, steps = one(drawn, recorded["every"], recorded["steps"], rungs, factor, width)
        best = min(range(trials), key=lambda each: drawn[each][-1])
        found = min((drawn[each][-1] for each in ended), default=float("inf"))
        kept += best in ended
        near += found <= drawn[best][-1] * 1.01
        saved += trials * recorded["steps"] / steps
    return {"kept": kept / replays, "within 1 %": near / replays, "times fewer steps": saved / replays}


def one(
    curves: list[list[float]], every: int, budget: int, rungs: int, factor: float, width: int
) -> tuple[set[int], int]:
    """(the trials that were trained to their end, steps trained) of one sweep."""
    from ray.tune.schedulers import TrialScheduler

    from ftlib.config import Experiment
    from ftlib.search import make_scheduler, rungs_for

    section = {"type": "asha", "rungs": rungs, "reduction_factor": factor, "unit": "steps"}
    experiment = Experiment.parse(
        {
            "name": "replay",
            "model": {"name_or_path": "m"},
            "data": {"train": "d"},
            "method": {"type": "sft"},
            "adapter": {"type": "lora"},
            "sweep": {"space": {"train.learning_rate": [1e-3]}, "scheduler": section},
        }
    )
    assert experiment.sweep is not None
    marks = rungs_for(experiment.sweep.scheduler, 0, budget)
    scheduler = make_scheduler(experiment, marks)
    scheduler.set_search_properties("eval_loss", "min")
    waiting, running, ended, steps = list(range(len(curves))), {}, set(), 0
    while waiting or running:
        while waiting and len(running) < width:
            number = waiting.pop(0)
            running[number] = 0
            scheduler.on_trial_add(None, SimpleNamespace(trial_id=str(number)))
        for number in list(running):
            before, running[number] = running[number], running[number] + every
            steps += every
            at, trial = running[number], SimpleNamespace(trial_id=str(number))
            result = {"eval_loss": curves[number][at // every - 1], "step": at}
            if at >= budget:
                scheduler.on_trial_complete(None, trial, result)
                ended.add(number)
                del running[number]
                continue
            at_rung = any(before < mark <= at for mark in marks.marks)
            if at_rung and scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                scheduler.on_trial_complete(None, trial, result)
                del running[number]
    return ended, steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("record", "replay"))
    parser.add_argument("inputs", nargs="*")
    parser.add_argument("--replays", type=int, default=200)
    options = parser.parse_args()
    if options.action == "record":
        record(*options.inputs)
        return
    for factor in (2, 3, 4):
        for rungs in (1, 2, 3):
            found = replay(options.replays, rungs, factor)
            print(f"factor {factor}, {rungs} rungs:", ", ".join(f"{k} {v:.2f}" for k, v in found.items()), flush=True)


if __name__ == "__main__":
    main()
