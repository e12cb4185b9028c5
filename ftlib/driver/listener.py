"""Who hears what happens while a run is driven. `SILENT`, for calls from Python, prints warnings alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlib.run.directory import Run


class Listener:
    """Each method may be overridden. None may raise: a view that fails must not end a sweep."""

    def say(self, sentence: str) -> None:
        """Something that a person may want to know."""

    def warn(self, sentence: str) -> None:
        """Something that a person should look at; the run goes on."""
        print(f"ftlib: warning: {sentence}", file=sys.stderr)

    def busy(self, what: str) -> AbstractContextManager[object]:
        """While the block lasts, ftlib does `what`."""
        return nullcontext()

    def count(self, what: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """While the block lasts, ftlib does `what` so many times; what it gives is called after each."""
        return nullcontext(lambda: None)

    def follow(self, run: Run, total: int, at_most: bool) -> AbstractContextManager[object]:
        """While the block lasts, `run` trains `total` trials; `at_most`: they may end before their last step."""
        return nullcontext()


SILENT = Listener()
