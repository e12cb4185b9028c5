"""The winner's settings with other seeds: how much of its lead is the luck of one seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.run.directory import Run, Trial

SEED = "train.seed"


def ask_for_replicas(experiment: Experiment, run: Run) -> int:
    """Sends a command for each training of the winner that is not there yet; returns how many."""
    from ftlib.run.commands import Command, send
    from ftlib.run.leaderboard import leaderboard

    best = leaderboard(run).best
    if best is None:
        return 0
    own = _seed(run, run.trial(best.trial))
    seeds = [own + number for number in range(1, experiment.evaluation.seeds)]
    missing = [seed for seed in seeds if seed not in replicas_of(run, best.trial, ended=False)]
    for seed in missing:
        send(run, Command("replicate", best.trial, {SEED: seed}))
    return len(missing)


def replicas_of(run: Run, trial: str, ended: bool = True) -> dict[int, Trial]:
    """The trials that have a trial's settings, by their seeds; with `ended`, those that have left weights."""
    found = {}
    for replica in run.trials():
        if replica.lineage.get("replica_of") == trial and (not ended or replica.state == "finished"):
            found[int(replica.lineage["changed"][SEED])] = replica
    return found


def why_fewer(experiment: Experiment, run: Run, trial: str) -> list[str]:
    """A sentence where fewer trainings of the winner are there than `evaluation.seeds` asks for."""
    asked, there = experiment.evaluation.seeds, 1 + len(replicas_of(run, trial))
    if there >= asked:
        return []
    return [f"evaluation.seeds asks for {asked} trainings of the winner, and {there} came to their end."]


def seed_name(seed: int) -> str:
    """What a replica is called beside the winner."""
    from ftlib.evaluation.results import REPLICA

    return f"{REPLICA}{seed}"


def of_seeds(run: Run, trial: str, evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """The winner's number beside those of its replicas, as evaluation.json has them; None where there are none.

    The number is the first metric of the first target task, or where there are no tasks the metric of the sweep. The
    winner was `lucky` where the mean of the other seeds is no better than the second of the leaderboard.
    """
    values = _of_task(run, trial, evaluation) or _of_objective(run, trial)
    if values is None or len(values[1]) < 2:
        return None
    metric, found = values
    return {
        "metric": metric,
        "values": {str(seed): value for seed, value in found.items()},
        "mean": statistics.fmean(found.values()),
        "std": statistics.stdev(found.values()),
        "trial": trial,
        "lucky": _is_lucky(run, trial),
    }


def _of_task(run: Run, trial: str, evaluation: Mapping[str, Any]) -> tuple[str, dict[int, float]] | None:
    for name, task in evaluation["tasks"].items():
        if task["role"] == "target":
            metric = next(iter(task["metrics"]))
            who = {
                _seed(run, run.trial(trial)): "winner",
                **{seed: seed_name(seed) for seed in replicas_of(run, trial)},
            }
            there = {seed: task["contenders"][one]["numbers"][metric]["value"] for seed, one in who.items()
                     if one in task["contenders"]}  # fmt: skip
            return f"{name}/{metric}", {seed: value for seed, value in there.items() if value is not None}
    return None


def _of_objective(run: Run, trial: str) -> tuple[str, dict[int, float]]:
    own = {_seed(run, run.trial(trial)): run.trial(trial), **replicas_of(run, trial)}
    numbers = _numbers(run, own.values())
    return run.objective[0], {seed: numbers[one.id] for seed, one in own.items() if one.id in numbers}


def _is_lucky(run: Run, trial: str) -> bool:
    from ftlib.run.leaderboard import leaderboard

    second = next((run.trial(row.trial) for row in leaderboard(run).rows if row.rank == 2), None)
    if second is None:
        return False
    numbers = _numbers(run, [second, *replicas_of(run, trial).values()])
    bar = numbers.pop(second.id)
    if not numbers:
        return False
    mean = statistics.fmean(numbers.values())
    return mean <= bar if run.objective[1] == "max" else mean >= bar


def _numbers(run: Run, trials: Iterable[Trial]) -> dict[str, float]:
    """Trials' objectives by their ids: on all rows where each of them has that, else on the part that all have."""
    from ftlib.run.leaderboard import leaderboard

    ids = [trial.id for trial in trials]
    rows = {row.trial: row for row in leaderboard(run).rows if row.trial in ids}
    whole = all(row.all_rows is not None for row in rows.values())
    found = {name: row.all_rows if whole else row.value for name, row in rows.items()}
    return {name: value for name, value in found.items() if value is not None}


def _seed(run: Run, trial: Trial) -> int:
    told = trial.params.get(SEED, run.resolved.get("seed", 0))
    return int(told)
