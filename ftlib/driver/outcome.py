"""What a run came to: its leaderboard, and what is left of it.

It is told from the run directory alone, so a run that has ended needs neither Ray nor torch to be asked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.run.directory import Run
    from ftlib.run.leaderboard import Leaderboard

DRIVERS = ("started", "resumed", "ended", "interrupted")  # events of a driver; others may come after its end


@dataclass(frozen=True)
class Outcome:
    """`left` trials have not ended, those that were not proposed yet among them; `over` says which budget is, or may
    be."""

    name: str  # the experiment's
    run: Run
    board: Leaderboard
    left: int
    over: str | None
    interrupted: bool  # with trials left, which `ftlib resume` goes on with

    @classmethod
    def of(cls, experiment: Experiment, run: Run, interrupted: bool = False) -> Outcome:
        """Reads the run, and writes its leaderboard."""
        from ftlib.run.leaderboard import write_leaderboard

        left, over = _left(experiment, run), _over(experiment, run)
        unfinished = left > 0 and (interrupted or bool(run.unfinished()) or not over)
        return cls(experiment.name, run, write_leaderboard(run), left, over, unfinished)

    @property
    def place(self) -> str:
        """Where the run is: its URL, or its directory."""
        from ftlib.run.places import url_of

        return url_of(self.run) or str(self.run.path)

    @property
    def verdict(self) -> str | None:
        """What the winner's evaluation says in a sentence; None where the experiment has no tasks."""
        from ftlib.files.json_files import read_json
        from ftlib.run.layout import EVALUATION

        return str((read_json(self.run.path / EVALUATION, dict) or {}).get("verdict") or "") or None

    @property
    def not_done(self) -> list[str]:
        """What was asked of the winner's evaluation and was not done, a sentence each."""
        from ftlib.driver.evaluate import not_done

        return not_done(self.run)

    @property
    def base_trouble(self) -> str | None:
        """Why the untuned base could not be evaluated; None where it could, or was not asked for."""
        from ftlib.run.layout import BASE

        status = self.run.trial(BASE).status
        return str(status["reason"]) if status["state"] == "failed" else None

    @property
    def failed(self) -> dict[str, str | None]:
        """Why trials failed, by their ids."""
        return {row.trial: row.reason for row in self.board.rows if row.state == "failed"}

    def why_no_winner(self) -> str | None:
        """Why there is nothing to promote; None where there is."""
        if self.board.best is not None:
            return None
        if self.left > 0:
            return f"{self.over} before a trial was evaluated: raise it."
        return f"all {len(self.failed)} trials failed: see {self.run.path}/trials/*/error.txt."


def has_ended(experiment: Experiment, run: Run) -> bool:
    """Whether nothing is left to do: all trials have ended, or the time or the money is spent, and no person has asked
    for more trials."""
    from ftlib.run.commands import waiting

    events = run.events()
    if not run.trials() or run.unfinished() or waiting(run) or not events or run.conducted:
        return False
    ended = [event["event"] for event in events if event["event"] in DRIVERS][-1:] == ["ended"]
    return _left(experiment, run) <= 0 or (ended and bool(_over(experiment, run)))


def _left(experiment: Experiment, run: Run) -> int:
    return experiment.number_of_trials + run.added - len(run.trials()) + len(run.unfinished())


def _over(experiment: Experiment, run: Run) -> str | None:
    told = [str(event["why"]) for event in run.events() if event["event"] == "budget_over"]
    if told:
        return told[-1]
    timed = experiment.sweep is not None and experiment.sweep.time_budget_s
    return "sweep.time_budget_s was over" if timed else None
