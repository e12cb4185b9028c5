"""`sweep:` which points are tried, who proposes them and who stops them."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftlib.config.search import GridSearch, OptunaSearch, SearchSection
from ftlib.config.section import Section
from ftlib.config.space import Dimension, Range, RatioOf


class Asha(Section):
    """Asynchronous successive halving (Li et al. 2018, arXiv:1810.05934). The first of `rungs` stands at
    `first_rung`, a share of the whole budget, and each next one `reduction_factor` times later; those at or past the
    end are left out. They are counted in `unit`, so that trials of different batch sizes meet at the same point.
    Where `first_rung` is null it is a twelfth, and no rung stands before every trial has made 20 steps, or an epoch
    where that is shorter. A trial that the evaluation rows cannot tell from those that go on (their difference is
    within its standard error) goes on too."""

    type: Literal["asha"]
    """ASHA (arXiv:1810.05934), asynchronous successive halving: trials are compared at rungs, and only the best go
    on."""
    reduction_factor: float = Field(default=3, gt=1)
    """One of so many trials goes on from a rung: 3 is the best third. Each rung stands so many times later than the one
    before."""
    first_rung: float | None = Field(default=None, gt=0, lt=1)
    """Where the first rung stands, as a share of the whole training. null is 1/12, but not before every trial has made
    20 steps, or an epoch where that is shorter."""
    rungs: int = Field(default=2, ge=1)
    """The number of rungs. A rung at or after the end of the training is left out."""
    min_eval_rows: int = Field(default=10, ge=1)
    """With fewer rows to evaluate on, no trial is stopped."""
    unit: Literal["tokens", "steps"] = "tokens"
    """What the rungs are counted in: tokens (without padding) or optimizer steps. Tokens are fair to trials with
    different batch sizes."""


class Median(Section):
    """Stops a trial whose best is below the median of the others' running averages (Golovin et al. 2017)."""

    type: Literal["median"]
    """Median stopping (Golovin et al. 2017): a trial is stopped whose best value is worse than the median of the other
    trials' averages."""
    checks: int = Field(default=4, ge=1)
    """The number of equal parts of the training. Trials are compared after each part."""
    min_samples_required: int = Field(default=3, ge=1)
    """The number of trials that must have come so far before one is stopped."""
    unit: Literal["tokens", "steps"] = "tokens"
    """What the checks are counted in: tokens (without padding) or optimizer steps."""


class Pruner(Section):
    """A pruner of Optuna's at `checks` even parts of the training. Its `n_startup_trials`, `n_warmup_steps`,
    `min_resource` and so on count these checks."""

    type: Literal["optuna"]
    """A pruner of Optuna's stops trials that look bad at a check."""
    pruner: Literal["median", "percentile", "successive_halving", "hyperband", "threshold"]
    """Optuna's pruner. patient and wilcoxon are not there: train.early_stopping_patience is patience, and wilcoxon
    compares single rows and not checks."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the pruner, by the names of Optuna's own class: {percentile: 25.0}. What it calls a step is a
    check."""
    checks: int = Field(default=4, ge=2)
    """The number of equal parts of the training. Trials are compared after each part."""
    unit: Literal["tokens", "steps"] = "tokens"
    """What the checks are counted in: tokens (without padding) or optimizer steps."""


class PBT(Section):
    """Population-based training (Jaderberg et al. 2017, arXiv:1711.09846): the worst copy the weights of the best and
    go on with changed `train.*` values."""

    type: Literal["pbt"]
    """Population-based training (arXiv:1711.09846): the worst trials take the weights of the best, and go on with
    changed values of train.*."""
    checks: int = Field(default=4, ge=1)
    """The number of equal parts of the training. Trials are compared after each part."""
    quantile_fraction: float = Field(default=0.25, gt=0, le=0.5)
    """The share of trials that take weights, and the share that give them."""
    resample_probability: float = Field(default=0.25, ge=0, le=1)
    """How often a value is drawn from the space again. Else it changes a little: a number is multiplied by 0.8 or 1.2,
    and a listed value gives way to its neighbour."""
    synch: bool = False
    """Wait at each check until every trial is there. The result can be repeated, but workers are idle while they
    wait."""
    unit: Literal["tokens", "steps"] = "tokens"
    """What the checks are counted in: tokens (without padding) or optimizer steps."""
    seed: int = 0
    """The seed of the draws."""


class NoScheduler(Section):
    """Every trial is trained to its end."""

    type: Literal["none"]
    """Every trial is trained to its end."""


SchedulerSection = Annotated[Asha | Median | Pruner | PBT | NoScheduler, Field(discriminator="type")]


PackWidth = Literal["off", "auto"] | Annotated[int, Field(ge=1)]
EvalRows = Literal["auto", "all"] | Annotated[int, Field(ge=1)]


def _pack(value: Any) -> Any:
    """YAML reads `off` as false."""
    return "off" if value is False else value


class SweepSection(Section):
    """Keys of `space` are dotted paths into the experiment."""

    space: dict[str, Dimension] = Field(min_length=1)
    """What is tried: dotted paths of keys, each with a list of values, {min: , max: , log: } or {ratio_of: , choices:
    }. Keys of model, data, method, adapter and train can be tried; docs/compatibility.md names those that cannot."""
    num_samples: int = Field(default=16, ge=1)
    """The number of trials. A grid has as many trials as points, and needs no such key."""
    metric: str | None = None
    """The metric of an evaluation that trials are compared by. docs/compatibility.md has those of each method. null is
    the method's first."""
    mode: Literal["min", "max"] | None = None
    """min where a lower metric is better, max where a higher one is. null takes what is right for the metric."""
    search: SearchSection = Field(default_factory=lambda: OptunaSearch(type="optuna"))
    """Who proposes the points."""
    scheduler: SchedulerSection = Field(default_factory=lambda: Asha(type="asha"))
    """Who stops trials early. With search: {type: grid} the default is {type: none}."""
    max_concurrent_trials: int | None = Field(default=None, ge=1)
    """The most trials that train at once. null is as many as the cluster has room for."""
    time_budget_s: float | None = Field(default=None, gt=0)
    """Seconds after which the sweep ends. Trials that still train are stopped where they stand."""
    pack: Annotated[PackWidth, BeforeValidator(_pack, json_schema_input_type=PackWidth | Literal[False])] = "auto"
    """How many trials share one base in one process (docs/packs.md). auto finds how many pay, and trains one by one
    where trials cannot share. A number asks for so many. off shares nothing."""
    eval_rows: EvalRows = "auto"
    """How many held-out rows, and questions of a task, trials are compared on before their end. They are the same for
    all trials. auto takes about a tenth of the cost of the training. A number takes at most so many. At its end, a
    trial is evaluated on all rows."""
    baseline: bool = True
    """Evaluate the untuned base too. It is the first row of the leaderboard."""

    @model_validator(mode="before")
    @classmethod
    def _a_grid_is_tried_whole(cls, values: Any) -> Any:
        search = values.get("search") if isinstance(values, dict) else None
        if isinstance(search, dict) and search.get("type") == "grid":
            return {"num_samples": 1, "scheduler": {"type": "none"}, **values}
        return values

    @model_validator(mode="after")
    def _parts_fit(self) -> SweepSection:
        if isinstance(self.search, GridSearch):
            wide = [path for path, dimension in self.space.items() if isinstance(dimension, Range)]
            if wide:
                raise ValueError(
                    f"search 'grid' needs lists, but {wide[0]} is a range: list its values or use 'optuna'"
                )
            if self.num_samples not in (1, size := len(self.grid_points())):
                raise ValueError(
                    f"num_samples is {self.num_samples}, but the grid has {size} points, each tried once: drop "
                    "num_samples, or add train.seed to the space to try each point several times"
                )
        if isinstance(self.scheduler, PBT):
            if isinstance(self.search, OptunaSearch):
                raise ValueError(
                    "scheduler 'pbt' changes values itself and takes no proposals: use search: {type: random}"
                )
            if not any(path.startswith("train.") for path in self.space):
                raise ValueError(
                    "scheduler 'pbt' changes train.* values, but the space has none: add train.learning_rate"
                )
        for path, dimension in self.space.items():
            if isinstance(dimension, RatioOf) and isinstance(self.space.get(dimension.ratio_of), RatioOf):
                raise ValueError(
                    f"{path} is a ratio of {dimension.ratio_of}, which is a ratio itself: use plain values"
                )
        return self

    @property
    def number_of_trials(self) -> int:
        """How many trials the sweep ends with."""
        return len(self.grid_points()) if isinstance(self.search, GridSearch) else self.num_samples

    def grid_points(self) -> list[dict[str, Any]]:
        """Every combination of the space's lists."""
        lists = [dimension.choices for dimension in self.space.values() if not isinstance(dimension, Range)]
        return [dict(zip(self.space, values, strict=True)) for values in itertools.product(*lists)]
