"""A pipeline: the whole YAML file as one frozen object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from ftlib.config.loader import read_mapping
from ftlib.config.messages import explain
from ftlib.config.pipeline.order import ordered
from ftlib.config.pipeline.step import NAME, EvaluateStep, MonitorStep, PromoteStep, Step, step_of
from ftlib.config.pipeline.when import Condition
from ftlib.config.section import Section
from ftlib.errors import ConfigError, nearest

BASE = "base"  # of `evaluate`: the model that the training of a step began with
TRAINS = ("sweep", "train")
OF_MONITOR = ("drift", "new_rows")  # figures of the traffic that a monitor step names


class Pipeline(Section):
    """One YAML file. `Pipeline.load(path)` is the only way in for the command line."""

    name: str = Field(pattern=NAME)
    """The name of the pipeline: its directory is STORAGE/NAME."""
    steps: dict[str, Step] = Field(min_length=1)
    """The steps, by their names. Each says what it needs."""
    when: str | None = None
    """On which condition all of it is done again, with the requests that were sampled since: drift > 0.2 or
    new_rows > 500. null is never."""
    storage: str = "pipelines"
    """The folder in which the directories of pipelines are."""

    @field_validator("when")
    @classmethod
    def _is_a_condition(cls, text: str | None) -> str | None:
        if text is not None:
            Condition.parse(text)
        return text

    @model_validator(mode="after")
    def _hangs_together(self) -> Pipeline:
        for name, step in self.steps.items():
            if re.fullmatch(NAME, name) is None:
                raise ValueError(f"'{name}' cannot be a step's name: use 1 to 64 of a-z, 0-9, '.', '_' and '-'")
            if isinstance(step, PromoteStep):
                self._check_trained(name, step.promote)
            if isinstance(step, EvaluateStep):
                self._check_models(name, step.evaluate)
        try:
            ordered({name: self.named_by(name) for name in self.steps})
        except ConfigError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        if self.condition and self.condition.names & set(OF_MONITOR) and self.monitor is None:
            figure = sorted(self.condition.names & set(OF_MONITOR))[0]
            raise ValueError(f"when looks at {figure}, which a step tells that says monitor: add one")
        return self

    def _check_trained(self, name: str, asked: str) -> None:
        trained = [other for other, step in self.steps.items() if step.kind in TRAINS]
        if asked not in trained:
            near = nearest(asked, trained)
            there = f"'{asked}' is no step that trains: there is {', '.join(trained) or 'none'}"
            raise ValueError(f"steps.{name}.promote: {there}.{near}" if near else f"steps.{name}.promote: {there}")

    def _check_models(self, name: str, models: list[str]) -> None:
        known = [BASE, *(other for other, step in self.steps.items() if step.kind in TRAINS)]
        for model in models:
            near = "" if model in known or "/" in model or Path(model).exists() else nearest(model, known)
            if near:
                raise ValueError(f"steps.{name}.evaluate: '{model}' is no step that trains, and no folder.{near}")

    @property
    def condition(self) -> Condition | None:
        """The key `when`."""
        return None if self.when is None else Condition.parse(self.when)

    @property
    def monitor(self) -> MonitorStep | None:
        """The first step that monitors."""
        return next((step for step in self.steps.values() if isinstance(step, MonitorStep)), None)

    def named_by(self, name: str) -> list[str]:
        """The steps that a step names: what it needs, whose winners it evaluates, whose winner it promotes."""
        step = self.steps[name]
        named = [*step.needs]
        if isinstance(step, EvaluateStep):
            named += [model for model in step.evaluate if self.trains(model)]
        if isinstance(step, PromoteStep):
            named.append(step.promote)
        return list(dict.fromkeys(named))

    def trains(self, name: str) -> bool:
        """Whether a name is that of a step that trains."""
        return name in self.steps and self.steps[name].kind in TRAINS

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """Reads and validates a file. Raises ConfigError with every problem, one to a line."""
        return cls.parse(read_mapping(path, "a pipeline"), str(path))

    @classmethod
    def parse(cls, tree: Mapping[str, Any], source: str = "pipeline") -> Pipeline:
        """Validates a mapping. `source` stands before each message."""
        told = tree.get("steps")
        steps, problems = dict[str, Step](), list[str]()
        for name, step in told.items() if isinstance(told, dict) else ():
            try:
                steps[name] = step_of(name, step, source)
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))
        try:
            return cls.model_validate({**tree, "steps": steps} if steps else tree)
        except ValidationError as error:
            raise ConfigError(explain(error, cls, source)) from None
