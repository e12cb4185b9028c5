"""Whether a sweep that ends by itself ends early, and whether it loses the best.

    python benchmarks/terminator.py [--replays 20]

Flat sweeps are made up: 32 trials whose true losses differ by a tenth of what the evaluation rows can tell, each seen
in 16 parts. Others are recorded: 32 of the last losses in curves/*.json, whose trials differ by a lot; what rows can
tell is taken as half a per cent of the best loss. "Lost": the winner of the trials that were made is truly worse than
the best of all 32 by more than the rows can tell.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from ftlib.config import Experiment
from ftlib.run.directory import Run
from ftlib.sweeps.terminator import Terminator

CURVES = Path(__file__).with_name("curves")
TRIALS, PARTS = 32, 16
Drawn = tuple[float, list[float], float]  # a trial's loss as it is seen, that on each part of the rows, the true one


def flat(draw: random.Random) -> tuple[list[Drawn], float]:
    """Trials that hardly differ, and what the rows can tell. What is hard about a row is hard for all trials."""
    told = 0.01
    rows = [draw.gauss(2.0, 0.2) for _ in range(PARTS)]
    trials = []
    for _ in range(TRIALS):
        true = draw.gauss(0, told / 10)
        parts = [row + true + draw.gauss(0, told * (PARTS / 2) ** 0.5) for row in rows]
        trials.append((statistics.mean(parts), parts, true))
    return trials, told


def recorded(name: str) -> Callable[[random.Random], tuple[list[Drawn], float]]:
    ends = [curve[-1] for curve in json.loads((CURVES / f"{name}.json").read_text())["curves"]]

    def drawn(draw: random.Random) -> tuple[list[Drawn], float]:
        told, trials = 0.005 * min(ends), []
        for end in draw.sample(ends, TRIALS):
            noise = [draw.gauss(0, told * (PARTS / 2) ** 0.5) for _ in range(PARTS)]
            trials.append((end, [end + one - statistics.mean(noise) for one in noise], end))
        return trials, told

    return drawn


def replay(trials: list[Drawn], section: dict[str, Any]) -> int:
    """How many trials are made until the sweep ends."""
    tree = {
        "name": "replay",
        "model": {"name_or_path": "m"},
        "data": {"train": "d"},
        "method": {"type": "sft"},
        "adapter": {"type": "lora"},
        "sweep": {"space": {"train.learning_rate": {"min": 1e-5, "max": 1e-1, "log": True}}, "terminator": section},
    }
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(folder, "replay", "", {"objective": ["eval_loss", "min"], "experiment": {}})
        terminator, study = Terminator(run, Experiment.parse(tree)), optuna.create_study()
        space = {"x": optuna.distributions.FloatDistribution(0, 1)}
        for made, (loss, parts, _) in enumerate(trials, 1):
            trial = run.trial(f"{made:03d}")
            trial.path.mkdir()
            row = {"step": 1, "epoch": 1.0, "tokens": 1, "seconds": 1.0, "progress": 1.0, "eval_loss": loss}
            trial.metrics_path.write_text(json.dumps({**row, "eval_loss_parts": parts}) + "\n")
            trial.set_state("finished")
            study.tell(study.ask(space), loss)
            if made < len(trials) and terminator.look(made, len(trials) - made, study) is not None:
                return made
    return len(trials)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replays", type=int, default=20)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sweeps = {"flat": flat, "alpaca": recorded("alpaca"), "docstrings": recorded("docstrings")}
    for section in ({"type": "gain"}, {"type": "regret_bound"}):
        for name, drawn in sweeps.items():
            made, lost = [], 0
            for number in range(options.replays):
                trials, told = drawn(random.Random(number))
                made.append(replay(trials, section))
                winner = min(trials[: made[-1]])
                lost += winner[2] - min(true for _, _, true in trials) > told
            early = sum(count < TRIALS for count in made)
            print(
                f"{section['type']:13s} {name:11s} {statistics.mean(made):5.1f} of {TRIALS} trials, "
                f"ended early in {early} of {len(made)}, lost the best in {lost}",
                flush=True,
            )


if __name__ == "__main__":
    main()
