"""Optuna's samplers and pruners by their names: what is made, and what is refused by name."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from ray.tune.schedulers import TrialScheduler

from ftlib.config import Experiment, OptunaSearch, Pruner
from ftlib.errors import ConfigError
from ftlib.sweeps.pruning import Pruning
from ftlib.sweeps.samplers import make_pruner, make_sampler


def search(**keys: Any) -> OptunaSearch:
    return OptunaSearch.model_validate({"type": "optuna", **keys})


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({}, optuna.samplers.TPESampler),
        ({"sampler": "TPESampler", "options": {"group": True, "n_ei_candidates": 32}}, optuna.samplers.TPESampler),
        ({"sampler": "gp", "options": {"deterministic_objective": True}}, optuna.samplers.GPSampler),
        ({"sampler": "nsgaii", "options": {"population_size": 8, "crossover": "sbx"}}, optuna.samplers.NSGAIISampler),
        ({"sampler": "NSGAIIISampler"}, optuna.samplers.NSGAIIISampler),
        ({"sampler": "qmc", "options": {"qmc_type": "halton", "scramble": True}}, optuna.samplers.QMCSampler),
        ({"sampler": "random"}, optuna.samplers.RandomSampler),
    ],
)
def test_a_sampler_by_its_name(keys: dict[str, Any], kind: type[Any]) -> None:
    assert type(make_sampler(search(**keys))) is kind


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"options": {"multivariat": False}}, "no such option.*Did you mean 'multivariate'"),
        ({"options": {"gamma": 3}}, "sweep.search.options.gamma.*an object of Python"),
        ({"options": {"seed": 3}}, "write sweep.search.seed"),
        ({"options": {"n_ei_candidates": "many"}}, "'many', but Optuna takes int"),
        ({"options": {"n_ei_candidates": True}}, "True, but Optuna takes int"),
        ({"sampler": "nsgaii", "options": {"crossover": "sx"}}, "one of: .*uniform"),
        ({"sampler": "nsgaii", "options": {"population_size": 1}}, "sweep.search.options: .*population_size"),
        ({"sampler": "nsgaii", "n_startup_trials": 4}, "n_startup_trials: sampler 'nsgaii' has no such"),
    ],
)
def test_what_a_sampler_does_not_have_is_refused_by_name(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_sampler(search(**keys))


@pytest.mark.skipif(find_spec("cmaes") is not None, reason="cmaes is installed")
def test_a_package_that_is_missing_is_named_with_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match="'cmaes' needs the package cmaes: pip install cmaes"):
        make_sampler(search(sampler="CmaEsSampler"))


def test_grid_and_unknown_names_are_answered() -> None:
    tree: dict[str, Any] = {"name": "x", "model": {"name_or_path": "m"}, "data": {"train": "d"}}
    tree |= {"method": {"type": "sft"}, "adapter": {"type": "lora"}}
    for name, said in (("GridSampler", "search: {type: grid}"), ("tpee", "Did you mean 'tpe'")):
        section = {"space": {"adapter.r": [2, 4]}, "search": {"type": "optuna", "sampler": name}}
        with pytest.raises(ConfigError, match=said):
            Experiment.parse({**tree, "sweep": section})


def pruning(**keys: Any) -> Pruning:
    scheduler = Pruning("step", (10, 20, 30), make_pruner(Pruner.model_validate({"type": "optuna", **keys})))
    scheduler.set_search_properties("eval_loss", "min")
    return scheduler


def at(scheduler: Pruning, name: str, step: int, loss: float) -> str:
    trial: Any = SimpleNamespace(trial_id=name, last_result=None)
    if name not in scheduler.asked:
        scheduler.on_trial_add(None, trial)
    return scheduler.on_trial_result(None, trial, {"step": step, "eval_loss": loss})


def test_a_pruner_stops_at_checks_alone() -> None:
    scheduler = pruning(pruner="percentile", options={"percentile": 50.0, "n_startup_trials": 1})
    first: Any = SimpleNamespace(trial_id="a")
    assert at(scheduler, "a", 10, 1.0) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(None, first, {"eval_loss": 1.0})
    assert at(scheduler, "c", 5, 9.0) == TrialScheduler.CONTINUE  # before the first check
    assert at(scheduler, "c", 11, 9.0) == TrialScheduler.STOP
    assert at(scheduler, "d", 11, 0.5) == TrialScheduler.CONTINUE
    bound = pruning(pruner="threshold", options={"upper": 3.0})
    assert at(bound, "e", 10, 3.5) == TrialScheduler.STOP


def test_what_a_pruner_needs_or_has_not_is_said() -> None:
    with pytest.raises(ConfigError, match=r"sweep.scheduler.options: .*percentile"):
        make_pruner(Pruner(type="optuna", pruner="percentile"))
    with pytest.raises(ConfigError, match="reduction_factor"):
        make_pruner(Pruner(type="optuna", pruner="successive_halving", options={"reduction_facto": 2}))
    assert make_pruner(Pruner(type="optuna", pruner="hyperband"))
