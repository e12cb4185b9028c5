"""What all trials of a run share, sent to each of them: plain data, so that the driver needs no torch to make it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

from ftlib.config import Experiment

PACKAGES = ("ftlib", "torch", "transformers", "trl", "peft", "ray")


def versions() -> dict[str, str]:
    """The installed versions of what decides a trial's numbers."""
    return {name: version(name) for name in PACKAGES}


@dataclass(frozen=True)
class Rungs:
    """Where a trial must evaluate so that a scheduler can compare it: at these counts of tokens or steps."""

    unit: Literal["tokens", "steps"] = "tokens"
    marks: tuple[int, ...] = ()

    def passed(self, count: int) -> int:
        return sum(count >= mark for mark in self.marks)


@dataclass(frozen=True)
class EvalPart:
    """What trials are compared on before their end: numbers of held-out rows, and of questions of the task that
    `sweep.metric` names. None is all."""

    rows: tuple[int, ...] | None = None
    questions: tuple[int, ...] | None = None

    @property
    def whole(self) -> bool:
        """Whether it leaves nothing out."""
        return self.rows is None and self.questions is None


@dataclass(frozen=True)
class Setting:
    """What a trial needs besides its point: the same for all trials of a run, and small enough to send around."""

    run: str  # its directory
    data: str  # the prepared data's directory
    resolved: dict[str, Any]
    metric: str = "eval_loss"
    mode: Literal["min", "max"] = "min"
    judged_by: tuple[str, ...] = ()  # further metrics: of other objectives, and of constraints
    rungs: Rungs = Rungs()
    part: EvalPart = EvalPart()
    baseline: bool = False  # whether the first trial evaluates the untuned base before itself
    copies_weights: bool = False  # whether a trial may go on from another's checkpoint
    key: str = field(default="", repr=False)  # with which what the run has at its URL is signed
    data_content: str = ""  # a digest of the prepared data, where the run is at a URL
    data_versions: dict[str, dict[str, str]] = field(default_factory=dict)  # of the registry, by the key that has one
    trusted: bool = False  # whether what is there is taken as it is (--trust)

    def experiment(self) -> Experiment:
        """Parsed once: a space of many listed points takes a second."""
        return self._parsed

    @cached_property
    def _parsed(self) -> Experiment:
        return Experiment.parse(self.resolved)
