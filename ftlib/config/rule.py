"""One thing that does not go together with another, and what to choose instead (`ftlib.config.compat`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftlib.config.experiment import Experiment


@dataclass(frozen=True)
class Rule:
    """`key` is the one to change; `instead` the nearest choice that works."""

    key: str
    applies: Callable[[Experiment], Any]
    reason: str
    instead: str

    @property
    def sentence(self) -> str:
        """The refusal that a person reads."""
        return f"{self.key}: {self.reason}: use {self.instead}"
