"""`tracking.json`: how many rows of each trial each tracker has, in which state, and under which id it keeps them."""

from __future__ import annotations

import copy
from typing import Any

from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.run.directory import Run
from ftlib.run.layout import TRACKING


class Handed:
    """The file, and what is to be written into it."""

    def __init__(self, run: Run) -> None:
        self.path = run.path / TRACKING
        self.known: dict[str, dict[str, dict[str, Any]]] = read_json(self.path, dict) or {}
        self.written: dict[str, Any] | None = None

    def of(self, tracker: str, trial: str) -> dict[str, Any]:
        """What one tracker has of one trial; it may be changed."""
        return self.known.setdefault(tracker, {}).setdefault(trial, {})

    def save(self) -> None:
        """Writes what has changed."""
        if self.known != self.written:
            write_json(self.path, self.known)
            self.written = copy.deepcopy(self.known)
