"""`sweep:` which points are tried, who proposes them and who stops them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftlib.config.objectives import constraints
from ftlib.config.search import GridSearch, OptunaSearch, SearchSection
from ftlib.config.section import Section
from ftlib.config.space import (
    SECTIONS,
    Auto,
    Dimension,
    Leaf,
    Range,
    RatioOf,
    Variants,
    leaves,
    settings_of,
    with_variants,
)


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


class Terminator(Section):
    """Ends a sweep whose further trials are not worth their price. Those that train go on to their end."""

    type: Literal["gain", "regret_bound"]
    """gain: what the trials that are left would gain, judged by how the best values so far are spread. regret_bound:
    Optuna's terminator, how far the best may be from the best there is, by a Gaussian process."""
    min_trials: int = Field(default=12, ge=4)
    """The sweep does not end before so many trials have come to their end."""
    min_gain: float | None = Field(default=None, gt=0)
    """The sweep ends when less than this is to be gained, in the unit of the metric. null is what the evaluation rows
    can tell apart: the standard error of the difference between two good trials."""
    min_gain_per_cost: float | None = Field(default=None, gt=0)
    """The sweep ends when what is left gains less than this for each unit of money that it costs. It needs
    scale.price_per_hour."""


PackWidth = Literal["off", "auto"] | Annotated[int, Field(ge=1)]
Mode = Literal["min", "max"]
EvalRows = Literal["auto", "all"] | Annotated[int, Field(ge=1)]


def _is_drawn(leaf: Leaf, point: dict[str, Any]) -> bool:
    return leaf.only is None or point[leaf.only[0]] == leaf.only[1]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _pack(value: Any) -> Any:
    """YAML reads `off` as false."""
    return "off" if value is False else value


class SweepSection(Section):
    """Keys of `space` are dotted paths into the experiment."""

    space: Annotated[dict[str, Dimension], BeforeValidator(with_variants)] = Field(min_length=1)
    """What is tried: dotted paths of keys, each with a list of values, {min: , max: , log: } or {ratio_of: , choices:
    }. Under a section's name stands a list of mappings (docs/sweeps.md). Keys of model, data, method, adapter and train
    can be tried; docs/compatibility.md has exceptions."""
    num_samples: int = Field(default=16, ge=1)
    """The number of trials. A grid has as many trials as points, and needs no such key."""
    metric: str | Annotated[list[str], Field(min_length=1)] | None = None
    """The metric of an evaluation that trials are compared by. docs/compatibility.md has those of each method. null is
    the method's first. A list names several objectives: [tickets/exact_match, latency_ms, trainable_parameters]; a
    trial keeps the weights that are best by the first."""
    mode: Mode | list[Mode] | None = None
    """min where a lower metric is better, max where a higher one is; of several metrics a list. null takes what is
    right for the metric."""
    constraints: dict[str, str] = Field(default_factory=dict)
    """Bounds that a trial must keep to win: {general/token_f1: ">= 0.5", latency_ms: "<= 200"}."""
    search: SearchSection = Field(default_factory=lambda: OptunaSearch(type="optuna"))
    """Who proposes the points."""
    scheduler: SchedulerSection = Field(default_factory=lambda: Asha(type="asha"))
    """Who stops trials early. With search: {type: grid} the default is {type: none}."""
    terminator: Terminator | None = None
    """When the sweep stops starting trials, because another is not worth its price: {type: gain}. null tries all."""
    prior: Literal["auto"] | None = None
    """auto begins with points that are known to be good: from your own finished runs on the same base and method in
    `storage`, and from published tables (docs/sweeps.md). null begins at random."""
    lr_find: bool = False
    """Begin with a range test of learning rates, as ftlib lr-find does it, and look only at the range that it finds.
    The space needs a range of train.learning_rate, and trials that can be packed."""
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

    @model_validator(mode="before")
    @classmethod
    def _several_objectives_stop_nobody(cls, values: Any) -> Any:
        if isinstance(values, dict) and (values.get("constraints") or len(_listed(values.get("metric"))) > 1):
            return {"scheduler": {"type": "none"}, **values}
        return values

    @model_validator(mode="after")
    def _objectives_fit(self) -> SweepSection:
        constraints(self.constraints)
        twice = next((name for name in self.metrics if self.metrics.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"metric names '{twice}' twice")
        if self.mode is not None and len(_listed(self.mode)) != max(len(self.metrics), 1):
            raise ValueError(f"mode has {len(_listed(self.mode))} values for {max(len(self.metrics), 1)} metrics")
        if len(self.metrics) < 2 and not self.constraints:
            return self
        what = "constraints are known at a trial's end" if self.constraints else "several metrics have no one order"
        if not isinstance(self.scheduler, NoScheduler):
            raise ValueError(f"scheduler '{self.scheduler.type}' stops trials by one metric, and {what}: use none")
        if isinstance(self.search, OptunaSearch) and self.search.sampler == "cmaes":
            raise ValueError("sampler 'cmaes' knows one metric and no constraints: use tpe, gp, nsgaii or random")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> SweepSection:
        if isinstance(self.search, GridSearch):
            wide = [leaf.name for leaf in self.leaves if isinstance(leaf.dimension, Range)]
            if wide:
                raise ValueError(
                    f"search 'grid' needs lists, but {wide[0]} is a range: list its values or use 'optuna'"
                )
            if self.num_samples not in (1, size := len(self.grid_points())):
                raise ValueError(
                    f"num_samples is {self.num_samples}, but the grid has {size} points, each tried once: drop "
                    "num_samples, or add train.seed to the space to try each point several times"
                )
        if self.terminator is not None and (why := self._why_no_terminator()) is not None:
            raise ValueError(f"terminator: {why}")
        if self.lr_find and not isinstance(self.space.get("train.learning_rate"), Range | Auto):
            raise ValueError("lr_find narrows a range, and the space has no range of train.learning_rate: add one")
        if self.prior is not None and (isinstance(self.search, GridSearch) or isinstance(self.scheduler, PBT)):
            raise ValueError("prior gives a searcher its first points, and a grid or a population takes none: drop it")
        if isinstance(self.scheduler, PBT):
            if isinstance(self.search, OptunaSearch):
                raise ValueError(
                    "scheduler 'pbt' changes values itself and takes no proposals: use search: {type: random}"
                )
            if not any(path.startswith("train.") for path in self.space):
                raise ValueError(
                    "scheduler 'pbt' changes train.* values, but the space has none: add train.learning_rate"
                )
            if any(isinstance(dimension, Variants) for dimension in self.space.values()):
                raise ValueError("scheduler 'pbt' changes values of running trials, which variants cannot: use asha")
        for path, dimension in self.space.items():
            if isinstance(dimension, RatioOf) and isinstance(self.space.get(dimension.ratio_of), RatioOf):
                raise ValueError(
                    f"{path} is a ratio of {dimension.ratio_of}, which is a ratio itself: use plain values"
                )
        return self

    def _why_no_terminator(self) -> str | None:
        if isinstance(self.search, GridSearch):
            return "a grid is tried whole: use search: {type: optuna} or {type: random}"
        if isinstance(self.scheduler, PBT):
            return "a population has all its trials from the beginning: use another scheduler"
        if len(self.metrics) > 1:
            return "it judges by one metric: name one, or leave the terminator out"
        return None

    @property
    def leaves(self) -> list[Leaf]:
        """What a searcher draws: a variant's keys only where the variant is."""
        return list(leaves(self.space))

    @property
    def paths(self) -> list[str]:
        """The keys in which trials may differ."""
        fixed = [
            path
            for section, dimension in self.space.items()
            if isinstance(dimension, Variants)
            for label in dimension.labels
            for path in settings_of(section, dimension, label)
        ]
        asked = [path for path, dimension in self.space.items() if isinstance(dimension, Auto)]
        return list(dict.fromkeys([*asked, *(leaf.path for leaf in self.leaves if leaf.path not in SECTIONS), *fixed]))

    @property
    def metrics(self) -> list[str]:
        """The metrics that `metric` names; none where it is null."""
        return _listed(self.metric)

    @property
    def number_of_trials(self) -> int:
        """How many trials the sweep ends with."""
        return len(self.grid_points()) if isinstance(self.search, GridSearch) else self.num_samples

    def grid_points(self) -> list[dict[str, Any]]:
        """Every combination of the space's lists."""
        points: list[dict[str, Any]] = [{}]
        for leaf in self.leaves:
            values = [] if isinstance(leaf.dimension, Range) else leaf.dimension.choices
            points = [
                more
                for point in points
                for more in ([{**point, leaf.name: value} for value in values] if _is_drawn(leaf, point) else [point])
            ]
        return points
