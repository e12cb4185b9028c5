"""Who stops: the experiment's `scheduler` as Ray Tune's object."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import ray.tune
from ray.tune.schedulers import FIFOScheduler, MedianStoppingRule

from ftlib import config
from ftlib.config import Experiment
from ftlib.run.context import Rungs
from ftlib.sweeps.asha import SuccessiveHalving
from ftlib.sweeps.population import Population
from ftlib.sweeps.pruning import Pruning
from ftlib.sweeps.samplers import make_pruner
from ftlib.sweeps.search import swept


def make_scheduler(experiment: Experiment, rungs: Rungs, packed: bool = False) -> Any:
    """The scheduler; its clock is the trial's `tokens` or `step`, and its marks are where trials evaluate.

    A packed trial can be stopped at any time; one in an actor of its own hears of it at its next report.
    """
    sweep = swept(experiment)
    scheduler = sweep.scheduler
    clock = {"time_attr": "tokens" if rungs.unit == "tokens" else "step"}
    if isinstance(scheduler, config.Asha):
        return SuccessiveHalving(clock["time_attr"], rungs.marks, scheduler.reduction_factor, calls_back=packed)
    if isinstance(scheduler, config.Median):
        return MedianStoppingRule(
            **clock,
            grace_period=rungs.marks[0],
            min_samples_required=scheduler.min_samples_required,
            hard_stop=True,
        )
    if isinstance(scheduler, config.Pruner):
        return Pruning(clock["time_attr"], rungs.marks, make_pruner(scheduler))
    if isinstance(scheduler, config.PBT):
        return Population(
            **clock,
            perturbation_interval=rungs.marks[0],
            hyperparam_mutations={
                path: _mutation(experiment, path, scheduler.seed) for path in sweep.space if path.startswith("train.")
            },
            quantile_fraction=scheduler.quantile_fraction,
            resample_probability=scheduler.resample_probability,
            custom_explore_fn=_within(experiment),
            synch=scheduler.synch,
            log_config=False,
        )
    return FIFOScheduler()


def draws(experiment: Experiment) -> dict[str, Any]:
    """The space as Tune's own random draws, for population-based training."""
    sweep = swept(experiment)
    seed = sweep.scheduler.seed if isinstance(sweep.scheduler, config.PBT) else 0

    def draw(path: str) -> Any:
        values = _mutation(experiment, path, seed)
        return ray.tune.choice(values) if isinstance(values, list) else ray.tune.sample_from(lambda _: values())

    return {path: draw(path) for path in sweep.space}


def _within(experiment: Experiment) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Keeps what PBT's multiplying made inside the ranges of the space."""
    space = {
        path: dimension for path, dimension in swept(experiment).space.items() if isinstance(dimension, config.Range)
    }

    def clip(point: dict[str, Any]) -> dict[str, Any]:
        return {
            path: min(max(value, type(value)(space[path].min)), type(value)(space[path].max))
            if path in space
            else value
            for path, value in point.items()
        }

    return clip


def _mutation(experiment: Experiment, path: str, seed: int) -> list[Any] | Callable[[], float]:
    """What PBT draws from when it does not multiply by 0.8 or 1.2: the list, or a draw from the range."""
    dimension = swept(experiment).space[path]
    assert not isinstance(dimension, config.Variants | config.Auto)  # which a population is refused
    if not isinstance(dimension, config.Range):
        return list(dimension.choices)
    low, high, draw = dimension.min, dimension.max, random.Random(f"{seed}/{path}")
    whole = experiment.is_integer(path)

    def sample() -> float:
        if dimension.log:
            value = math.exp(draw.uniform(math.log(low), math.log(high)))
        else:
            value = draw.uniform(low, high)
        if dimension.q:
            value = low + round((value - low) / dimension.q) * dimension.q
        return int(value) if whole else value

    return sample
