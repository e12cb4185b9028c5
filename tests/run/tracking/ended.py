"""A sweep that has ended, written by hand: a base, a winner, a worse trial, one that failed, and all its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftlib.config import Experiment
from ftlib.files.json_files import append_row
from ftlib.run.directory import Run
from ftlib.run.leaderboard import write_leaderboard

VERDICT = "tickets: 80.0 %, few_shot 40.0 %, p < 0.001 on 300 rows"
SPACE = {"adapter.r": [2, 4, 8], "train.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}
LOSSES = {"000": (3.0, 2.0, 2.5), "001": (3.0, 2.8, 2.9)}  # the best of 000 is not its last


def ended(folder: Path, tree: dict[str, Any], track: dict[str, Any]) -> Run:
    """The run in `folder`; `track` is its section."""
    tasks = [{"name": "tickets", "data": tree["data"]["train"], "metrics": ["exact_match"]}]
    tree = {**tree, "track": track, "sweep": {"space": SPACE, "num_samples": 3}, "evaluation": {"tasks": tasks}}
    resolved = {"experiment": Experiment.parse(tree).to_dict(), "objective": ["eval_loss", "min"]}
    run = Run.create(folder, "x", "", resolved | {"data": {"hash": "abc", "train_rows": 64}}, "x-run")
    for place, trial_id in enumerate(["base", "000", "001", "002"]):
        _trial(run, trial_id, {"adapter.r": 2**place, "train.learning_rate": 1e-3})
    _results(run)
    run.log_event("started")
    run.log_event("ended")
    return run


def _trial(run: Run, trial_id: str, params: dict[str, Any]) -> None:
    trial = run.trial(trial_id)
    trial.path.mkdir()
    state = "failed" if trial_id == "002" else "finished"
    if trial_id != "base":
        (trial.path / "params.json").write_text(json.dumps(params))
    for step, loss in enumerate(LOSSES.get(trial_id, (3.5,))):
        about = {"step": step, "tokens": 10 * step, "seconds": 1.0 * step, "progress": 1.0, "time": 1.79e9 + step}
        append_row(trial.metrics_path, {**about, "loss": loss + 1, "machine/memory_gib": 0.5})
        append_row(trial.metrics_path, {**about, "eval_loss": loss, "tickets/exact_match": 0.5, "eval_parts": [loss]})
    (trial.path / "adapter").mkdir()
    (trial.path / "adapter" / "adapter_model.safetensors").write_text("weights")
    (trial.path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "tiny"}')
    trial.set_state(state, "out of memory" if state == "failed" else None)


def _results(run: Run) -> None:
    write_leaderboard(run)
    number = {"numbers": {"exact_match": {"value": 0.8, "low": 0.7, "high": 0.9}}}
    tasks = {"tickets": {"contenders": {"winner": number}}}
    (run.path / "evaluation.json").write_text(json.dumps({"verdict": VERDICT, "winner": "000", "tasks": tasks}))
    (run.path / "report.html").write_text("<html></html>")
    for row in range(300):
        for contender in ("base", "winner"):
            append_row(run.path / "answers.jsonl", {
                "task": "tickets", "contender": contender, "row": row, "reference": "a", "answer": f"{row}",
                "prompt": [{"role": "user", "content": "which?"}], "scores": {"exact_match": 1.0},
            })  # fmt: skip
