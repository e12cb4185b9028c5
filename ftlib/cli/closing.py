"""The last lines of `sweep`, `train` and `resume`: the leaderboard, what failed, and the command that comes next.

They are told from the run directory alone, so a run that has ended needs neither Ray nor torch to be asked again.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from ftlib.cli.output import echo, print_table, say, width

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.run.directory import Run
    from ftlib.run.leaderboard import Leaderboard


def planned(experiment: Experiment) -> int:
    """How many trials the experiment says."""
    return experiment.sweep.number_of_trials if experiment.sweep else 1


def has_ended(experiment: Experiment, run: Run) -> bool:
    """Whether nothing is left to do: all trials have ended, or the time or the money has, and nobody asked for more."""
    from ftlib.run.commands import waiting

    events = run.events()
    if not run.trials() or run.unfinished() or waiting(run) or not events or run.conducted:
        return False
    ended = events[-1]["event"] == "ended"
    return _left(experiment, run) <= 0 or (ended and bool(_over(experiment, run)))


def tell_the_end(experiment: Experiment, run: Run, interrupted: bool = False, promoted_as: str | None = None) -> None:
    """Prints what a run came to, and promotes its winner where there is a name for it.

    Raises FtlibError where no trial can be promoted; exits with 130 where trials are left.
    """
    from ftlib.errors import FtlibError
    from ftlib.run.layout import BASE
    from ftlib.run.leaderboard import to_table, write_leaderboard
    from ftlib.run.mirror import url_of

    board, place = write_leaderboard(run), url_of(run) or run.path
    print_table(to_table(board, width=width()))
    base = run.trial(BASE).status
    if base["state"] == "failed":
        say(f"warning: the untuned base could not be evaluated, so nothing is compared with it: {base['reason']}")
    left, over = _left(experiment, run), _over(experiment, run)
    if left > 0 and (interrupted or run.unfinished() or not over):
        echo(f"interrupted with {left} trials to go; to go on:", fg="yellow")
        echo(f"  ftlib resume {shlex.quote(str(place))}")
        sys.exit(130)
    failed = _tell_failed(board)
    if board.best is None and left > 0:
        raise FtlibError(f"{over} before a trial was evaluated: raise it.")
    if board.best is None:
        raise FtlibError(f"all {failed} trials failed: see {run.path}/trials/*/error.txt.")
    if over is not None and left > 0:
        echo(f"the sweep ended early: {over}", fg="yellow")
    if board.cost is not None:
        echo(f"cost: {board.cost:.4g} in all, {board.best.cost or 0.0:.4g} of it the winner's")
    if promoted_as is not None:
        from ftlib.cli.winners import promote_trial

        promote_trial(run, board.best.trial, promoted_as)
        return
    echo("promote the winner:")
    echo(f"  ftlib promote {shlex.quote(str(place))} {shlex.quote(board.best.trial)} --as {experiment.name}")


def _tell_failed(board: Leaderboard) -> int:
    failed = [row for row in board.rows if row.state == "failed"]
    for row in failed:
        echo(f"trial {row.trial} failed: {row.reason}", fg="red", err=True)
    return len(failed)


def _left(experiment: Experiment, run: Run) -> int:
    """Trials that have not ended, those that were not proposed yet among them."""
    return planned(experiment) + run.added - len(run.trials()) + len(run.unfinished())


def _over(experiment: Experiment, run: Run) -> str | None:
    """Which budget is over, or may be."""
    told = [str(event["why"]) for event in run.events() if event["event"] == "budget_over"]
    if told:
        return told[-1]
    timed = experiment.sweep is not None and experiment.sweep.time_budget_s
    return "sweep.time_budget_s was over" if timed else None
