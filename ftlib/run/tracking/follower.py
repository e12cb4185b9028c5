"""A thread reads new rows of `metrics.jsonl` and hands them to the trackers; at its end the sweep's results follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from ftlib.config import TrackSection
from ftlib.files.repeating import repeating
from ftlib.run.directory import ENDED, Run, Trial
from ftlib.run.layout import BASE
from ftlib.run.tracking.handed import Handed
from ftlib.run.tracking.mlflow_tracker import MlflowTracker, mlflow_uri
from ftlib.run.tracking.results import Results, has_ended
from ftlib.run.tracking.tensorboard_tracker import TensorboardTracker
from ftlib.run.tracking.wandb_settings import said, wandb_mode
from ftlib.run.tracking.wandb_tracker import WandbTracker


class Tracker(Protocol):
    """A place for numbers. `log` gets rows of one trial in the order of their steps; `end` its final state."""

    name: str

    def log(self, trial: Trial, row: dict[str, Any]) -> None:
        """Takes one row."""

    def end(self, trial: Trial, state: str) -> None:
        """Closes one trial."""

    def conclude(self, results: Results) -> None:
        """Takes what the sweep came to, after its last trial."""

    def close(self) -> None:
        """Closes what is still open."""


def check(track: TrackSection) -> None:
    """Raises ConfigError for what cannot be tracked: no key, no library, no server."""
    if track.wandb is not None:
        wandb_mode(track.wandb)
    if track.mlflow is not None:
        mlflow_uri(track.mlflow)


@contextmanager
def following(run: Run, track: TrackSection, warn: Callable[[str], None], every: float = 1.0) -> Iterator[None]:
    """Tracks the run while the block lasts, and what is left after it. `warn` gets one sentence a failed tracker."""
    handed = Handed(run)
    follower = _Follower(run, _trackers(run, track, handed, warn), handed, warn)
    trouble = None
    try:
        with repeating(follower.follow, every, "ftlib-tracking", patience=120) as thread:
            yield
    except Exception as error:
        trouble = _line(error)
        raise
    finally:
        if thread.is_alive():
            warn("tracking: a tracker does not answer; its last rows are only in metrics.jsonl.")
        else:
            follower.follow()
            follower.conclude(trouble)
            follower.close()


class _Follower:
    """Hands each new row to each tracker once; a tracker that fails is dropped with one warning."""

    def __init__(self, run: Run, trackers: list[Tracker], handed: Handed, warn: Callable[[str], None]) -> None:
        self.run, self.trackers, self.handed, self.warn = run, trackers, handed, warn

    def follow(self) -> None:
        """One look at every trial; none where nobody is told."""
        if not self.trackers:
            return
        base = self.run.trial(BASE)
        for trial in [*([base] if base.path.exists() else []), *self.run.trials()]:
            state, rows = trial.state, trial.metrics()  # the state first: no row comes after a final one
            for tracker in list(self.trackers):
                self._guarded(tracker, partial(self._hand_over, tracker, trial, rows, state))
        self.handed.save()

    def conclude(self, trouble: str | None) -> None:
        """Hands over what the sweep came to, where it has ended or failed; one that was interrupted goes on later."""
        if not self.trackers or not (trouble or has_ended(self.run)):
            return
        results = Results.of(self.run, trouble)
        for tracker in list(self.trackers):
            self._guarded(tracker, partial(tracker.conclude, results))
        self.handed.save()

    def close(self) -> None:
        """Closes what trials that did not end have left open."""
        for tracker in list(self.trackers):
            self._guarded(tracker, tracker.close)

    def _hand_over(self, tracker: Tracker, trial: Trial, rows: list[dict[str, Any]], state: str) -> None:
        # A resumed trial has forgotten the rows after its checkpoint: they come again.
        before = self.handed.of(tracker.name, trial.id)
        start = min(before.get("rows", 0), len(rows))
        for row in rows[start:]:
            tracker.log(trial, row)
        if state in ENDED and (state != before.get("state") or len(rows) > start):
            tracker.end(trial, state)
        before.update(rows=len(rows), state=state)

    def _guarded(self, tracker: Tracker, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.trackers.remove(tracker)
            self.run.log_event("tracker_failed", tracker=tracker.name, why=str(error))
            self.warn(f"{tracker.name} failed and is off for the rest of this run: {_line(error)}")


def _trackers(run: Run, track: TrackSection, handed: Handed, warn: Callable[[str], None]) -> list[Tracker]:
    trackers: list[Tracker] = [TensorboardTracker(run)] if track.tensorboard else []
    if track.mlflow is not None:
        trackers.append(MlflowTracker(run, track.mlflow, mlflow_uri(track.mlflow), handed))
    if track.wandb is not None:
        mode = wandb_mode(track.wandb)
        if track.wandb.mode not in ("auto", mode):
            warn(f"track.wandb.mode is '{track.wandb.mode}', and {next(iter(said()))} says {mode}: W&B is {mode}.")
        trackers += [WandbTracker(run, track.wandb, mode, warn)] if mode != "disabled" else []
    return trackers


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
