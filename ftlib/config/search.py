"""`sweep.search:` who proposes points."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from ftlib.config.section import Section

SamplerName = Literal["tpe", "random", "cmaes", "gp", "nsgaii", "nsgaiii", "qmc"]
EVERY_POINT = ("grid", "bruteforce")  # Optuna's, which end a loop of Optuna's own


def _sampler(value: Any) -> Any:
    """Optuna's own names of its classes are known too: TPESampler, CmaEsSampler."""
    plain = value.lower().removesuffix("sampler").replace("-", "").replace("_", "") if isinstance(value, str) else ""
    if plain in EVERY_POINT:
        raise ValueError(f"'{value}' tries each point once, which is search: {{type: grid}} here: use that")
    return plain if plain in get_args(SamplerName) else value


class OptunaSearch(Section):
    """`storage`: null keeps the study in memory (it is saved with the run); a database URL shares it."""

    type: Literal["optuna"]
    """Optuna proposes points, and learns from the trials that it has seen."""
    sampler: Annotated[SamplerName, BeforeValidator(_sampler, json_schema_input_type=SamplerName)] = "tpe"
    """Optuna's sampler, by its short name or its class's name (TPESampler). tpe proposes near good points. cmaes is for
    ranges, gp for few dear trials, nsgaii and nsgaiii for several metrics. qmc spreads points evenly, random draws
    them. Optuna's grid is search: {type: grid}."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the sampler, by the names of Optuna's own class: {multivariate: false} of tpe, {sigma0: 0.2} of cmaes,
    {population_size: 20} of nsgaii."""
    n_startup_trials: int | None = Field(default=None, ge=1)
    """Trials at random points before tpe, gp or cmaes begins to learn. null is 8, and 1 of cmaes."""
    storage: str | None = None
    """Where the study is. null keeps it with the run. run is the file study.db in the run's directory, which
    optuna-dashboard reads while the sweep runs. A database URL, postgresql://... or sqlite:///..., shares the study
    with sweeps of the same name. Its password is not written into the run."""
    seed: int = 0
    """The seed of the proposals."""


class RandomSearch(Section):
    """Independent draws."""

    type: Literal["random"]
    """Points are drawn at random, each without regard to the others."""
    seed: int = 0
    """The seed of the draws."""


class GridSearch(Section):
    """Every combination, once; every dimension must be a list. No trial is stopped early unless a `scheduler` is
    named."""

    type: Literal["grid"]
    """Every combination of the listed values is one trial. Ranges are not allowed."""


SearchSection = Annotated[OptunaSearch | RandomSearch | GridSearch, Field(discriminator="type")]
