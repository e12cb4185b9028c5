"""What a person at a terminal reads of a run: lines while it lasts, then what it came to and the command that comes
next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from ftlib.driver.listener import Listener
from ftlib.driver.promote import promote_trial
from ftlib.driver.terminal import console, echo, print_table, say, width
from ftlib.run.plain_text import plain

if TYPE_CHECKING:
    from ftlib.driver.outcome import Outcome
    from ftlib.run.directory import Run

INTERRUPTED = 130  # the exit status of a run that can go on


class TerminalListener(Listener):
    """Prints what happens, with a live table where there is a terminal."""

    def __init__(self) -> None:
        self._out = console()

    def say(self, sentence: str) -> None:
        self._out.print(sentence, soft_wrap=True, highlight=False)

    def warn(self, sentence: str) -> None:
        self._out.print(f"warning: {sentence}", style="yellow", soft_wrap=True, highlight=False)

    def busy(self, what: str) -> AbstractContextManager[object]:
        return self._out.status(what)

    @contextmanager
    def count(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._out, transient=True, disable=not self._out.is_terminal) as bar:
            task = bar.add_task(plain(what), total=total)
            yield lambda: bar.advance(task)
        self.say(f"{what}: {total:,} {'block' if total == 1 else 'blocks'}")

    def follow(self, run: Run, total: int, at_most: bool) -> AbstractContextManager[object]:
        from ftlib.run.watch import watching

        return watching(run, total, self._out, at_most=at_most)


def tell(outcome: Outcome, promoted_as: str | None = None) -> int:
    """Prints what a run came to, and promotes its winner where there is a name for it; returns the exit status.

    The status is 1 where the winner's evaluation was not done as it was asked for.
    Raises FtlibError where no trial can be promoted.
    """
    from ftlib.errors import FtlibError
    from ftlib.run.leaderboard_text import to_table

    board, place = outcome.board, shlex.quote(outcome.place)
    print_table(to_table(board, width=width()))
    if trouble := outcome.base_trouble:
        say(f"warning: the untuned base could not be evaluated, so nothing is compared with it: {trouble}")
    if outcome.interrupted:
        echo(f"interrupted with {outcome.left} trials to go; to go on:", fg="yellow")
        echo(f"  ftlib resume {place}")
        return INTERRUPTED
    for trial, reason in outcome.failed.items():
        echo(f"trial {trial} failed: {reason}", fg="red", err=True)
    if why := outcome.why_no_winner():
        raise FtlibError(why)
    assert board.best is not None
    if outcome.over is not None and outcome.left > 0:
        echo(f"the sweep ended early: {outcome.over}", fg="yellow")
    if board.cost is not None:
        echo(f"cost: {board.cost:.4g} in all, {board.best.cost or 0.0:.4g} of it the winner's")
    if outcome.verdict is not None:
        echo(outcome.verdict)
    for sentence in outcome.not_done:
        echo(sentence, fg="red", err=True)
    status = 1 if outcome.not_done else 0
    if promoted_as is not None:
        promote_trial(outcome.run, board.best.trial, promoted_as)
        return status
    echo("promote the winner:")
    echo(f"  ftlib promote {place} {shlex.quote(board.best.trial)} --as {outcome.name}")
    return status
