"""What steps make and name: data:NAME is made by the step that builds NAME, registry:NAME by the step with `as: NAME`.

A step whose file names what another step makes comes after it, whether it says so or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ftlib.config import Experiment
from ftlib.config.loader import parse_override, read_mapping, set_dotted
from ftlib.config.pipeline import (
    BuildStep,
    MonitorStep,
    Pipeline,
    PromoteStep,
    ServeStep,
    Step,
    SweepStep,
    TrainStep,
)
from ftlib.config.pipeline.order import ordered
from ftlib.config.pipeline.step import promoted_as
from ftlib.config.recipe import Recipe
from ftlib.errors import ConfigError, InputError

DATA, REGISTRY = "data:", "registry:"
PROMPTED = ("base", "few_shot", "rag")  # rivals of a promotion that are no names


@dataclass(frozen=True)
class Loaded:
    """A step with the file that it names. `written` are the settings as their author wrote them, with what the step
    sets: what a default is may change with ftlib."""

    name: str
    step: Step
    written: dict[str, Any]
    file: Experiment | Recipe | None = None

    @cached_property
    def made(self) -> str | None:
        """The name that it makes: data:NAME, registry:NAME; None for no name."""
        if isinstance(self.step, BuildStep):
            assert isinstance(self.file, Recipe)
            return f"{DATA}{self.file.name}"
        found = promoted_as(self.step)
        return f"{REGISTRY}{found}" if found else None

    @cached_property
    def named(self) -> list[str]:
        """The names that it depends on: data:NAME[@N], registry:NAME[@N]. What it makes itself is none."""
        found = [text.partition("/")[0] for text in texts_in(self.written) if text.startswith((DATA, REGISTRY))]
        if isinstance(self.step, PromoteStep):
            found += [f"{REGISTRY}{name.removeprefix(REGISTRY)}" for name in self.step.rivals if name not in PROMPTED]
        if isinstance(self.step, ServeStep):
            found += [f"{REGISTRY}{name}" for name in self.step.serve]
        if isinstance(self.step, MonitorStep):
            found.append(f"{REGISTRY}{self.step.monitor}")
        return [name for name in dict.fromkeys(found) if name != self.made]


def load_step(name: str, step: Step) -> Loaded:
    """A step with its file. Raises ConfigError for a file that is not there, or that cannot be used."""
    own = step.model_dump(mode="json", exclude_unset=True, exclude={"needs", "set", "workers"})
    if isinstance(step, BuildStep):
        recipe = _of(name, lambda: Recipe.load(step.build, step.overrides))
        return Loaded(name, step, {**own, **recipe.to_dict()}, recipe)
    if isinstance(step, SweepStep | TrainStep):
        return _training(name, step, own)
    return Loaded(name, step, {**own, **(getattr(step, "set", None) or {})})


def _training(name: str, step: SweepStep | TrainStep, own: dict[str, Any]) -> Loaded:
    file = step.sweep if isinstance(step, SweepStep) else step.train
    alone = [] if isinstance(step, SweepStep) else ["sweep=null"]
    experiment = _of(name, lambda: Experiment.load(file, [*step.overrides, *alone]))
    if isinstance(step, SweepStep) and experiment.sweep is None:
        raise ConfigError(f"steps.{name}: {file} has no sweep section: add one, or write train: {file}.")
    tree = read_mapping(file)
    for override in [*step.overrides, *alone]:
        set_dotted(tree, *parse_override(override))
    tree.pop("smoke", None)
    return Loaded(name, step, {**own, **tree}, experiment)


def _of(name: str, load: Any) -> Any:
    try:
        return load()
    except InputError as error:
        raise ConfigError(f"steps.{name}: {error}") from None


def load_steps(pipeline: Pipeline) -> dict[str, Loaded]:
    """The steps with their files, in the order in which the pipeline names them. Raises ConfigError with every problem,
    one to a line."""
    loaded, problems = dict[str, Loaded](), list[str]()
    for name, step in pipeline.steps.items():
        try:
            loaded[name] = load_step(name, step)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return loaded


def makers(loaded: dict[str, Loaded]) -> dict[str, str]:
    """The step that makes each name. Raises ConfigError for two steps that make the same."""
    found: dict[str, str] = {}
    for name, step in loaded.items():
        if step.made is None:
            continue
        if step.made in found:
            raise ConfigError(f"steps {found[step.made]} and {name} both make {step.made}: give one another name.")
        found[step.made] = name
    return found


def needs_of(pipeline: Pipeline, loaded: dict[str, Loaded]) -> dict[str, list[str]]:
    """What each step needs, said or named by its files; the steps in their order. Raises ConfigError for a circle."""
    made = makers(loaded)
    needs = {
        name: list(dict.fromkeys([*pipeline.named_by(name), *(made[one] for one in step.named if one in made)]))
        for name, step in loaded.items()
    }
    return {name: needs[name] for name in ordered(needs)}


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a tree of settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for below in value.values():
            yield from texts_in(below)
    elif isinstance(value, list):
        for below in value:
            yield from texts_in(below)
