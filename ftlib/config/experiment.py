"""An experiment: the whole YAML file as one frozen object, its overrides, and the points of its sweep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, model_validator

from ftlib.config.adapters import AdapterSection
from ftlib.config.budget import BudgetSection
from ftlib.config.comparable import why_no_metric, why_no_tasks, why_not_compared
from ftlib.config.compat import ANY_PARTS, refusals
from ftlib.config.data import DataSection
from ftlib.config.evaluation import EvaluationSection
from ftlib.config.loader import parse_override, read_mapping, set_dotted
from ftlib.config.messages import explain, unknown_key
from ftlib.config.methods import MethodSection
from ftlib.config.model import ModelSection
from ftlib.config.objectives import objectives, why_not_judged
from ftlib.config.section import Section
from ftlib.config.space import Auto, Choice, Dimension, Leaf, Range, RatioOf, Variants, settings_of
from ftlib.config.sweep import PackWidth, SweepSection
from ftlib.config.track import TrackSection
from ftlib.config.train import ScaleSection, TrainSection
from ftlib.config.untrained import why_of_no_use
from ftlib.errors import ConfigError, nearest
from ftlib.files.urls import is_url, why_no_place

# Keys that may hold a path; `*` stands for each member of a list or a mapping.
PATHS = (
    "model.name_or_path",
    "model.tokenizer",
    "data.train",
    "data.train.*.path",
    "data.eval",
    "data.replay.train",
    "adapter.from",
    "adapter.adapters.*",
    "method.teacher",
    "method.ewc.data",
    "method.models.*",
    "method.rewards.*.function",
    "method.rewards.*.arguments.model",
    "evaluation.tasks.*.data",
    "evaluation.passages",
)
NOT_SWEPT = ("evaluation", "sweep", "scale", "budget", "track", "storage", "name", "smoke")  # the same for every trial
TRIED_TOGETHER = 1000  # points of a sweep's space; each takes about a millisecond


class Experiment(Section):
    """One YAML file. `Experiment.load(path, overrides)` is the only way in for the command line."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """The name of the experiment: at most 64 letters, digits, '.', '_' and '-'. The first is a letter or a digit. The
    directory of a run begins with it."""
    model: ModelSection
    """The base model, and how its weights are read."""
    data: DataSection
    """The rows to train on and to evaluate on, their format, and how they become tokens."""
    method: MethodSection
    """What the model learns from the rows: the training method."""
    adapter: AdapterSection | None = None
    """Which weights are added to the base and trained, by PEFT's names. null trains the whole model."""
    train: TrainSection = Field(default_factory=TrainSection)
    """How long and how fast a trial trains, and when it is evaluated. The names are those of TrainingArguments."""
    scale: ScaleSection = Field(default_factory=ScaleSection)
    """How one trial is spread over workers, and what each worker takes of the Ray cluster."""
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    """Tasks that the trained models do, the metrics of their answers, and whom the winner is compared with."""
    sweep: SweepSection | None = None
    """Which points are tried, who proposes them and who stops trials early. null trains once."""
    budget: BudgetSection = Field(default_factory=BudgetSection)
    """What a sweep may cost, and how long it may take. When it is over, trials stop where they stand."""
    track: TrackSection = Field(default_factory=TrackSection)
    """Where the metrics go besides the run directory."""
    storage: str = "runs"
    """Where runs are kept: a folder, or a URL (s3://BUCKET/... or gs://BUCKET/...). Each run is a directory there."""
    smoke: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """What --smoke sets: dotted paths and their values, {train.max_steps: 4}. With them the whole file runs on a CPU in
    about a minute."""

    @model_validator(mode="after")
    def _parts_fit(self, info: ValidationInfo) -> Experiment:
        problem = why_not_stored(self)
        if problem:
            raise ValueError(problem)
        if self.budget.max_cost is not None and self.scale.worker_price is None:
            raise ValueError("budget.max_cost needs a price: set scale.price_per_hour, what an hour of a worker costs")
        terminator = self.sweep.terminator if self.sweep is not None else None
        if terminator is not None and terminator.min_gain_per_cost is not None and self.scale.worker_price is None:
            raise ValueError("sweep.terminator.min_gain_per_cost needs a price: set scale.price_per_hour")
        for rule in () if info.context == ANY_PARTS else refusals(self):
            raise ValueError(rule.sentence)
        problem = why_of_no_use(self) or why_no_tasks(self) or why_not_judged(self) or why_no_metric(self)
        if problem:
            raise ValueError(problem.removesuffix("."))
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = (), smoke: bool = False) -> Experiment:
        """Reads, overrides and validates a file. Raises ConfigError with every problem, one to a line.

        `smoke` sets what the file's own smoke section says, before the overrides.
        """
        tree = read_mapping(path)
        if smoke:
            _set_smoke(tree, path)
        for override in overrides:
            set_dotted(tree, *parse_override(override))
        return cls.parse(tree, str(path))

    @classmethod
    def parse(cls, tree: Mapping[str, Any], source: str = "experiment") -> Experiment:
        """Validates a mapping, its sweep space included. `source` stands before each message."""
        try:
            experiment = cls.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(explain(error, cls, source)) from None
        experiment._check_space(source)
        return experiment

    def anchored(self) -> Experiment:
        """The same experiment with absolute paths: workers run in other folders, and a resume may start in one.

        What does not exist here is left as it is: the name of a model or a data set on the Hub, or a URL.
        """
        storage = self.storage if is_url(self.storage) else str(Path(self.storage).expanduser().absolute())
        moved = self.with_paths(lambda key, value: _absolute(value))
        return moved.model_copy(update={"storage": storage})

    def with_paths(self, change: Callable[[str, str], str]) -> Experiment:
        """The same experiment with `change(key, value)` in each place that may hold a path (`PATHS`). Which keys its
        author gave stays known: an adapter that goes on takes its shape from where it began."""
        tree = self.model_dump(mode="json", exclude_unset=True)
        for path in PATHS:
            *parents, key = path.split(".")
            for section in _sections(tree, parents):
                for name in [*section] if key == "*" else [key]:
                    if isinstance(section.get(name), str):
                        section[name] = change(path, section[name])
            _change_choices((tree.get("sweep") or {}).get("space") or {}, path, change)
        return type(self).parse(tree)

    @property
    def objective(self) -> tuple[str, Literal["min", "max"]]:
        """The metric that trials are compared by, the first of several, and which way is better."""
        return self.objectives[0]

    @property
    def objectives(self) -> list[tuple[str, Literal["min", "max"]]]:
        """Each metric of `sweep.metric`, and which way is better."""
        return objectives(self)

    @property
    def number_of_trials(self) -> int:
        """How many trials it asks for: those of its sweep, or one."""
        return self.sweep.number_of_trials if self.sweep else 1

    @property
    def trials_at_once(self) -> int:
        """How many of them may train at once."""
        asked = self.sweep.max_concurrent_trials if self.sweep else None
        return min(self.number_of_trials, asked or self.number_of_trials)

    @property
    def pack(self) -> PackWidth:
        """How many trials share a base: `sweep.pack`. Without a sweep it is ftlib that decides."""
        return self.sweep.pack if self.sweep else "auto"

    def to_dict(self) -> dict[str, Any]:
        """Every default filled in, as plain YAML and JSON values."""
        return self.model_dump(mode="json")

    def at(self, params: Mapping[str, Any]) -> Experiment:
        """The experiment at one point of its space: `params` are dotted paths to values, ratios already resolved."""
        tree = self.to_dict()
        tree["sweep"] = None
        for path, value in sorted(params.items(), key=lambda told: told[0] != "adapter.type"):
            if path == "adapter.type" and (tree["adapter"] or {}).get("type") != value:
                tree["adapter"] = {}  # the keys of another type are not its own
            if path.startswith("adapter.") and tree["adapter"] is None:
                raise ConfigError(f"{path}: adapter is null (full fine-tuning), so it has no '{path[8:]}'.")
            set_dotted(tree, path, value)
        return type(self).parse(tree, "point " + ", ".join(f"{path}={value}" for path, value in params.items()))

    def resolve_ratios(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """A sampled point as values of keys: each `ratio_of` turned into its value, {adapter.r: 8, adapter.lora_alpha:
        2} -> 16, and each variant into its keys, {adapter: lora, adapter.lora.r: 8} -> {adapter.type: lora, ...}."""
        space, known = self._space(), {leaf.name: leaf for leaf in self._leaves()}
        params: dict[str, Any] = {}
        for name, value in sampled.items():
            variants = space.get(name)
            if isinstance(variants, Variants):
                params |= settings_of(name, variants, value)
            else:
                params[known[name].path if name in known else name] = value
        for name in sampled:
            dimension = known[name].dimension if name in known else None
            if isinstance(dimension, RatioOf):
                of = params.get(dimension.ratio_of)
                of = self._value_at(dimension.ratio_of) if of is None else of
                params[known[name].path] = sampled[name] * of
        return params

    def is_integer(self, path: str) -> bool:
        """Whether the key at a dotted path, or a dimension of that name, holds a whole number."""
        leaf = next((leaf for leaf in self._leaves() if leaf.name == path and leaf.only is not None), None)
        if leaf is not None and leaf.only is not None:
            return self._in_variant(*leaf.only).is_integer(leaf.path)
        annotation = self._annotation_at(path)
        kinds = (annotation, *get_args(annotation))
        return int in kinds and float not in kinds

    def _leaves(self) -> list[Leaf]:
        return self.sweep.leaves if self.sweep else []

    def _in_variant(self, path: str, label: str) -> Experiment:
        """The experiment in a variant, with the first value of each of its dimensions."""
        inner = [leaf for leaf in self._leaves() if leaf.only == (path, label)]
        first = {leaf.name: _first(leaf.dimension) for leaf in inner}
        return self.at(self.resolve_ratios({path: label, **first}))

    def _space(self) -> dict[str, Dimension]:
        return self.sweep.space if self.sweep else {}

    def _section_at(self, path: str, within: str) -> tuple[Any, str]:
        """The section, or the mapping, that holds the key at a path, and the key."""
        section: Any = self
        *parents, last = path.split(".")
        for part in parents:
            if not isinstance(section, BaseModel) or part not in type(section).model_fields:
                raise ConfigError(unknown_key(path, type(self), within))
            section = getattr(section, part)
            if section is None:
                raise ConfigError(f"{within}: {part} is null in this experiment, so '{path}' cannot be swept.")
        if isinstance(section, dict) and last not in section:
            raise ConfigError(f"{within}: there is no '{last}' among {', '.join(section)}.{nearest(last, section)}")
        if not isinstance(section, dict) and not (
            isinstance(section, BaseModel) and last in type(section).model_fields
        ):
            raise ConfigError(unknown_key(path, type(self), within))
        return section, last

    def _value_at(self, path: str) -> Any:
        section, last = self._section_at(path, f"sweep.space.{path}")
        return section[last] if isinstance(section, dict) else getattr(section, last)

    def _annotation_at(self, path: str) -> Any:
        section, last = self._section_at(path, f"sweep.space.{path}")
        return type(section[last]) if isinstance(section, dict) else type(section).model_fields[last].annotation

    def _check_space(self, source: str) -> None:
        """Tries each value of each dimension alone, so that a value that is not possible is named before anything is
        trained."""
        for path, dimension in self._space().items():
            where = f"{source}: sweep.space.{path}"
            if isinstance(dimension, Auto):
                self._section_at(path, where)
                continue
            if isinstance(dimension, Variants):
                self._check_variants(path, dimension, where)
                continue
            if path.split(".")[0] in NOT_SWEPT:
                raise ConfigError(f"{where}: '{path.split('.')[0]}' is the same for every trial and cannot be swept.")
            self._section_at(path, where)
            if isinstance(dimension, RatioOf):
                self._section_at(dimension.ratio_of, where)
            differs = not isinstance(dimension, Choice) or len(dimension.choices) > 1
            if differs and (why := why_not_compared(self, path)):
                raise ConfigError(f"{where}: {why}.")
            for value in self._probes(path, dimension):
                try:
                    point = self.at(self.resolve_ratios({path: value}))
                except ConfigError as error:
                    raise ConfigError(f"{where}: the value {value!r} is not possible: {error}") from None
                if point.method.rows != self.method.rows:
                    raise ConfigError(
                        f"{where}: the value {value!r} trains on other rows than method.* as it stands: "
                        "make a run for each value."
                    )
        self._check_pairs(source)

    def _check_variants(self, path: str, variants: Variants, where: str) -> None:
        """Tries each mapping, and each value of each of its dimensions."""
        for label in variants.labels:
            inner = [leaf for leaf in self._leaves() if leaf.only == (path, label)]
            for key in (*settings_of(path, variants, label), *(leaf.path for leaf in inner)):
                if key.split(".")[0] in NOT_SWEPT:
                    raise ConfigError(f"{where}.{label}: '{key}' is the same for every trial and cannot be swept.")
                if why := why_not_compared(self, key):
                    raise ConfigError(f"{where}.{label}: {key}: {why}.")
            try:
                there = self._in_variant(path, label)
                first = {leaf.name: _first(leaf.dimension) for leaf in inner}
                for leaf in inner:
                    for value in there._probes(leaf.path, leaf.dimension):
                        self.at(self.resolve_ratios({path: label, **first, leaf.name: value}))
            except ConfigError as error:
                raise ConfigError(f"{where}.{label}: it is not possible: {error}") from None

    def _check_pairs(self, source: str) -> None:
        """Tries the listed values together, where they are few. Each value alone may be possible, and the pair may not
        be."""
        listed = {path: dimension.choices for path, dimension in self._space().items() if isinstance(dimension, Choice)}
        if len(listed) < 2 or math.prod(map(len, listed.values())) > TRIED_TOGETHER:
            return
        for values in itertools.product(*listed.values()):
            try:
                self.at(dict(zip(listed, values, strict=True)))
            except ConfigError as error:
                raise ConfigError(f"{source}: sweep.space: {error}") from None

    def _probes(self, path: str, dimension: Dimension) -> list[Any]:
        if isinstance(dimension, Choice | RatioOf):
            return list(dimension.choices)
        assert isinstance(dimension, Range)
        if not self.is_integer(path):
            return [dimension.min, dimension.max]
        if not (dimension.min.is_integer() and dimension.max.is_integer() and (dimension.q or 1.0).is_integer()):
            raise ConfigError(f"sweep.space.{path}: '{path}' is a whole number, so min, max and q must be whole.")
        return [int(dimension.min), int(dimension.max)]


def _first(dimension: Dimension) -> Any:
    """A value that a dimension can have. A whole number stays one."""
    if isinstance(dimension, Range):
        return int(dimension.min) if dimension.min.is_integer() else dimension.min
    assert isinstance(dimension, Choice | RatioOf)
    return dimension.choices[0]


def why_not_stored(experiment: Experiment) -> str | None:
    """Why runs of an experiment cannot be kept where `storage` says, as a sentence; None where they can."""
    place = experiment.storage
    if not is_url(place):
        return None
    if (why := why_no_place(place)) is not None:
        return f"storage: {why}"
    shared = "storage is a URL, but {}: set storage to a folder that all nodes share"
    if experiment.scale.strategy != "single":
        return shared.format(f"the workers of strategy '{experiment.scale.strategy}' write one checkpoint together")
    if experiment.sweep is not None and experiment.sweep.scheduler.type == "pbt":
        return shared.format("population-based training hands checkpoints from trial to trial")
    return None


def _set_smoke(tree: dict[str, Any], path: str | Path) -> None:
    values = tree.get("smoke")
    if not isinstance(values, dict) or not values:
        raise ConfigError(
            f"{path}: --smoke sets what the section smoke says, and there is none: add one, or leave it out."
        )
    for key, value in values.items():
        set_dotted(tree, str(key), value)


def _sections(tree: Any, parents: list[str]) -> list[dict[str, Any]]:
    """The mappings at a path, as far as there are any."""
    found = [tree]
    for part in parents:
        inner = [_members(node) if part == "*" else [node.get(part)] for node in found]
        found = [node for node in itertools.chain(*inner) if node]
    return [node for node in found if isinstance(node, dict)]


def _change_choices(space: dict[str, Any], path: str, change: Callable[[str, str], str]) -> None:
    """The same for the values of a dimension, `data.train` among several files, and for those of variants."""
    section, _, key = path.partition(".")
    variants = (space.get(section) or {}).get("variants") or []
    for told, name in ((space.get(path), "choices"), *((variant, key) for variant in variants)):
        value = told.get(name) if isinstance(told, dict) else None
        if isinstance(told, dict) and isinstance(value, str):
            told[name] = change(path, value)
        elif isinstance(told, dict) and isinstance(value, list):
            told[name] = [change(path, one) if isinstance(one, str) else one for one in value]


def _members(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _absolute(value: str) -> str:
    """A path that exists, made absolute; `file.py:function` is one too."""
    file, colon, function = value.partition(".py:")
    path = Path(f"{file}.py" if colon else value).expanduser()
    return f"{path.absolute()}{colon and ':'}{function}" if path.exists() else value
