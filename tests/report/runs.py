"""Run directories made by hand: what a sweep of so many trials leaves behind, evaluated or not."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from ftlib.files.atomic import write_json
from ftlib.run import layout
from ftlib.run.directory import Run
from tests.conftest import write_jsonl

ZERO = 1_795_787_000.0
SPACE = {
    "adapter.r": {"choices": [4, 8, 16]},
    "train.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
    "train.optim": {"choices": ["adamw_torch", "sgd"]},
}
DATA = {
    "hash": "8c40da8d",
    "rows": "answers",
    "format": "messages",
    "template": "tokenizer",
    "max_length": 160,
    "rows_read": 480,
    "train_rows": 456,
    "eval_rows": 24,
    "train_tokens": 38851,
    "trained_tokens": 10301,
    "lengths": {"min": 61, "mean": 85.2, "p50": 85, "p95": 103, "max": 115},
    "odd": ["two rows are the same"],
}


def make_run(folder: Path, trials: int = 12, evaluations: int = 8, name: str = "tickets", seed: int = 0) -> Run:
    """A finished sweep on two machines with prices; trial 003 fails, and 002 loses its machine once."""
    experiment = {
        "name": name,
        "model": {"name_or_path": "/bases/small-chat"},
        "method": {"type": "sft"},
        "adapter": {"type": "lora"},
        "scale": {"price_per_hour": {"CPU": 2.0}, "resources_per_worker": {"CPU": 1}},
        "sweep": {"space": SPACE},
        "storage": str(folder),
    }
    resolved = {
        "experiment": experiment,
        "objective": ["eval_loss", "min"],
        "base": {"name_or_path": "/bases/small-chat", "parent": None},
        "data": DATA,
        "seed": 42,
        "versions": {"ftlib": "0.1.0", "torch": "2.13.0"},
        "git_commit": "48c18ba039a9",
    }
    text = f"name: {name}\n# override: train.max_steps=40\n"
    run = Run.create(folder, "run", text, resolved, f"{len(list(folder.iterdir())):03d}")
    drawn = random.Random(seed)
    events: list[dict[str, Any]] = [event(0, "created"), event(0.5, "started", host="vm", pid=1)]
    events += [event(1, "host_opened", host=host, node=f"node{host}", width=4, age_s=1.0) for host in (1, 2)]
    add_trial(run, layout.BASE, {}, [2.5], "finished")
    for number in range(trials):
        state = "failed" if number == 3 else "stopped" if number % 3 == 2 else "finished"
        events += add_drawn(run, number, state, evaluations, drawn)
    events.sort(key=lambda row: row["time"])
    events.append(event(events[-1]["time"] - ZERO + 1, "ended", states={}))
    write_jsonl(run.path / layout.EVENTS, events)
    return run


def event(at: float, kind: str, **more: Any) -> dict[str, Any]:
    return {"time": ZERO + at, "event": kind, **more}


def add_drawn(run: Run, number: int, state: Any, evaluations: int, drawn: random.Random) -> list[dict[str, Any]]:
    """A trial at a random point, whose loss falls the faster the nearer its rate is to 3e-3; returns its events."""
    rate, rank = 10 ** drawn.uniform(-4, -2), drawn.choice([4, 8, 16])
    speed = math.exp(-((math.log10(rate) + 2.5) ** 2)) * (1 + rank / 32)
    length = max(2, evaluations // 3) if state == "stopped" else evaluations
    losses = [0.05 + 2.4 * math.exp(-4 * speed * (step + 1) / evaluations) for step in range(length)]
    trial = f"{number:03d}"
    params = {"adapter.r": rank, "train.learning_rate": rate, "train.optim": drawn.choice(["adamw_torch", "sgd"])}
    add_trial(run, trial, params, [] if state == "failed" else losses, state)
    start, host = 2 + 40 * (number // 4), 1 + number % 2
    place = {"node": f"node{host}", "ip": f"192.0.2.{host}", "pid": 1}
    (run.trial(trial).path / layout.PLACE).write_text(json.dumps(place))
    end = start + 30 * length / evaluations
    told = [event(start, "trial_started", trial=trial, host=host, failures=0, waited_s=0.0)]
    if number == 2:
        told += [
            event(start + 4, "trial_preempted", trial=trial, reason="its machine is gone", node=f"node{host}", lost_s=1)
        ]
        told += [event(start + 6, "trial_started", trial=trial, host=2, failures=0, waited_s=2.0)]
    return [*told, event(end, f"trial_{state}", trial=trial, reason=None)]


def add_trial(run: Run, name: str, params: dict[str, Any], losses: list[float], state: Any) -> None:
    trial = run.trial(name)
    trial.path.mkdir()
    (trial.path / layout.PARAMS).write_text(json.dumps(params))
    rows: list[dict[str, Any]] = []
    for step, loss in enumerate(losses, 1):
        of_row = {"step": 0 if name == layout.BASE else 5 * step, "tokens": 1700 * step, "seconds": 4.0 * step}
        rows += [{**of_row, "loss": 1.1 * loss}, {**of_row, "eval_loss": loss}]
    write_jsonl(trial.metrics_path, rows)
    (trial.path / layout.STATUS).write_text(
        json.dumps({"state": state, "reason": "it diverged" if state == "failed" else None})
    )


def evaluate(run: Run, best: str, tie: str, rows: int = 60, evil: str = "") -> None:
    """An evaluation of a task of labels and of one that should not be forgotten, with every answer."""
    drawn = random.Random(1)
    answers = [answer for row in range(rows) for answer in _labels(row, drawn, evil)]
    answers += [answer for row in range(9) for answer in _general(row)]
    write_jsonl(run.path / layout.ANSWERS, answers)
    numbers = {"base": (0.12, 0.06, 0.22), "few_shot": (0.48, 0.36, 0.61), "winner": (0.835, 0.72, 0.91)}
    general = {"base": (0.526, 0.4, 0.7), "winner": (0.521, 0.4, 0.7)}
    seeds = {"metric": "tickets/accuracy", "values": {"42": 0.835, "43": 0.82}, "mean": 0.83, "std": 0.01}
    write_json(run.path / layout.EVALUATION, {
        "verdict": f"tickets: 83.5 % (72.1 to 91.0), few_shot 48.3 %, p < 0.001 on {rows} rows; "
                   "general: 52.1 %, base 52.6 %, no loss beyond chance; 3 seeds ± 1.1",
        "winner": best,
        "tasks": {
            "tickets": _task("target", rows, "accuracy", numbers, best),
            "general": _task("regression", 9, "token_f1", general, best),
        },
        "ties": [best, tie],
        "seeds": {**seeds, "trial": best},
        "failed": [f"few_shot was not asked on general: it has no training rows.{evil}"],
    })  # fmt: skip


def _task(
    role: str, rows: int, metric: str, numbers: dict[str, tuple[float, float, float]], best: str
) -> dict[str, Any]:
    contenders = {
        who: {
            "numbers": {metric: dict(zip(("value", "low", "high"), told, strict=True))},
            "what": f"trial {best}" if who == "winner" else "small-chat",
        }
        for who, told in numbers.items()
    }
    return {"role": role, "rows": rows, "units": rows, "data": "test.jsonl", "hash": "x", "metrics": {metric: "max"},
            "shares": [metric], "contenders": contenders, "comparisons": []}  # fmt: skip


LABELS = ("billing", "shipping", "account")


def _labels(row: int, drawn: random.Random, evil: str) -> list[dict[str, Any]]:
    right = LABELS[row % 3]
    wrote = {
        "base": "I am sorry to hear that. Could you tell me more about your problem?"
        if drawn.random() > 0.12
        else right,
        "few_shot": right if drawn.random() < 0.48 else drawn.choice(LABELS),
        "winner": right if drawn.random() < 0.85 else drawn.choice(LABELS),
    }
    prompt = [{"role": "user", "content": f"Which queue? Ticket {row}: my {right} went wrong, please help.{evil}"}]
    return [
        {"task": "tickets", "contender": who, "row": row, "group": None, "prompt": prompt, "reference": right,
         "answer": text + evil, "scores": {"accuracy": float(text == right)}, "seconds": 0.1, "tokens": 4}
        for who, text in wrote.items()
    ]  # fmt: skip


def _general(row: int) -> list[dict[str, Any]]:
    prompt = [{"role": "system", "content": "Be short."}, {"role": "user", "content": f"What is {row} + 1?"}]
    return [
        {"task": "general", "contender": who, "row": row, "prompt": prompt, "reference": str(row + 1),
         "answer": str(row + wrong), "scores": {"token_f1": float(wrong == 1)}}
        for who, wrong in (("base", 1), ("winner", 1 + (row == 4)))
    ]  # fmt: skip
