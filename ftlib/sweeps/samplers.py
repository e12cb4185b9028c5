"""Optuna's samplers and pruners by their names, with options of their own.

What an option may be is asked of Optuna's own signatures. So a new version's options are known without a line here. An
option that is a function or an object cannot stand in a file, and is refused by its name.
"""

from __future__ import annotations

import inspect
import warnings
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.samplers import nsgaii

from ftlib import config
from ftlib.errors import ConfigError, nearest

SAMPLERS: dict[str, type[optuna.samplers.BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "gp": optuna.samplers.GPSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
    "nsgaiii": optuna.samplers.NSGAIIISampler,
    "qmc": optuna.samplers.QMCSampler,
}
PRUNERS: dict[str, type[optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "threshold": optuna.pruners.ThresholdPruner,
}
PACKAGES = {"cmaes": "cmaes", "gp": "torch"}  # what a sampler needs besides Optuna, and how it is called on PyPI
VIOLATIONS = "violations"  # the attribute of a trial in the study: at most 0 for each bound that it keeps
STARTUP = 8  # random points before a sampler learns: few, since a trial of a sweep is dear
OURS = ("seed", "n_startup_trials")  # options of samplers that are keys of sweep.search
PLAIN = {"int": int, "float": (int, float), "bool": bool, "str": str}
CROSSOVERS = {
    name.removesuffix("Crossover").lower(): getattr(nsgaii, name)
    for name in nsgaii.__all__
    if name.endswith("Crossover") and not name.startswith("Base")
}
WHERE, WHERE_PRUNER = "sweep.search.options", "sweep.scheduler.options"


def make_sampler(
    search: config.OptunaSearch, constrained: bool = False, conditional: bool = False
) -> optuna.samplers.BaseSampler:
    """Optuna's sampler. `constrained`: trials have bounds to keep (`VIOLATIONS`), where the sampler knows bounds.
    `conditional`: some keys are drawn in some trials alone.

    Raises ConfigError for an option that the sampler does not have, and for a package that is not installed.
    """
    kind = SAMPLERS[search.sampler]
    check_package(search.sampler)
    given = _options(kind, search.options, WHERE, f"sampler '{search.sampler}'")
    known = inspect.signature(kind).parameters
    if "n_startup_trials" in known and search.sampler != "cmaes":
        given["n_startup_trials"] = search.n_startup_trials or STARTUP
    elif search.n_startup_trials is not None and search.sampler != "random":  # which draws all trials so
        if "n_startup_trials" not in known:
            raise ConfigError(f"sweep.search.n_startup_trials: sampler '{search.sampler}' has no such trials: drop it.")
        given["n_startup_trials"] = search.n_startup_trials
    if kind is optuna.samplers.TPESampler:
        # Trials run side by side: constant_liar keeps TPE from proposing next to a point that is still training.
        given = {"constant_liar": True, "multivariate": True, "group": conditional} | given
        given["group"] = given["group"] and given["multivariate"]
    if constrained and "constraints_func" in known:
        given["constraints_func"] = violations
    made: optuna.samplers.BaseSampler = _made(kind, {**given, "seed": search.seed}, WHERE)
    return made


def violations(trial: optuna.trial.FrozenTrial) -> list[float]:
    """How far a trial is beyond each bound; a function of a module, since a study is pickled."""
    found: list[float] = trial.user_attrs.get(VIOLATIONS, [])
    return found


def make_pruner(section: config.Pruner) -> optuna.pruners.BasePruner:
    """Optuna's pruner, whose steps are checks. Raises ConfigError as `make_sampler`."""
    kind = PRUNERS[section.pruner]
    given = _options(kind, section.options, WHERE_PRUNER, f"pruner '{section.pruner}'")
    if kind is optuna.pruners.HyperbandPruner:
        given = {"max_resource": section.checks} | given
    made: optuna.pruners.BasePruner = _made(kind, given, WHERE_PRUNER)
    return made


def check_package(sampler: str) -> None:
    """Raises ConfigError for a sampler whose package is not installed."""
    package = PACKAGES.get(sampler)
    if package is not None and find_spec(package) is None:
        raise ConfigError(
            f"sweep.search.sampler: '{sampler}' needs the package {package}: pip install {package}, or use tpe."
        )


def check(experiment: config.Experiment) -> None:
    """Raises ConfigError for a sampler or a pruner that cannot be made as the experiment asks for it."""
    sweep = experiment.sweep
    if sweep is None:
        return
    if isinstance(sweep.search, config.OptunaSearch):
        make_sampler(sweep.search)
    if isinstance(sweep.scheduler, config.Pruner):
        make_pruner(sweep.scheduler)


def _made(kind: type[Any], options: dict[str, Any], where: str) -> Any:
    with warnings.catch_warnings():  # Optuna calls most options experimental
        warnings.simplefilter("ignore")
        try:
            return kind(**{name: value() if isinstance(value, type) else value for name, value in options.items()})
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{where}: {str(error).rstrip('.')}.") from None


def _options(kind: type[Any], options: dict[str, Any], where: str, owner: str) -> dict[str, Any]:
    """The options as the class takes them."""
    known = {
        name: parameter
        for name, parameter in inspect.signature(kind).parameters.items()
        if name not in _keys(kind) and (name == "crossover" or _kinds(parameter))
    }
    for name in options:
        if name not in known:
            raise ConfigError(f"{where}.{name}: {_why_not(kind, name, owner, known)}")
    return {name: _value(f"{where}.{name}", value, known[name]) for name, value in options.items()}


def _why_not(kind: type[Any], name: str, owner: str, known: dict[str, inspect.Parameter]) -> str:
    if name in _keys(kind):
        return f"it is a key of the section itself: write sweep.search.{name}."
    if name in inspect.signature(kind).parameters:
        return f"{owner} takes an object of Python here, which cannot stand in a file: leave it out."
    return f"{owner} has no such option. It has: {', '.join(known) or 'none'}.{nearest(name, known)}"


def _keys(kind: type[Any]) -> tuple[str, ...]:
    """The options of a sampler that are keys of its section."""
    return OURS if issubclass(kind, optuna.samplers.BaseSampler) else ()


def _kinds(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """The plain types that a parameter takes; none where it takes an object."""
    words = [word.strip() for word in str(parameter.annotation).strip("'\"").split("|")]
    kinds: list[Any] = [PLAIN[word] for word in words if word in PLAIN]
    return (*kinds, type(None)) if kinds and "None" in words else tuple(kinds)


def _value(where: str, value: Any, parameter: inspect.Parameter) -> Any:
    if parameter.name == "crossover":
        if value not in CROSSOVERS:
            raise ConfigError(f"{where} is {value!r}, but must be one of: {', '.join(CROSSOVERS)}.")
        return CROSSOVERS[value]
    kinds = _kinds(parameter)
    flat = tuple(kind for one in kinds for kind in (one if isinstance(one, tuple) else (one,)))
    fits = isinstance(value, flat) and (bool in flat or not isinstance(value, bool))
    if not fits:
        wanted = str(parameter.annotation).strip("'\"").replace(" | ", " or ").replace("None", "null")
        raise ConfigError(f"{where} is {value!r}, but Optuna takes {wanted} there.")
    return value


__all__ = ["check", "check_package", "make_pruner", "make_sampler", "violations"]
