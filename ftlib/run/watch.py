"""The live view of a run: trials by state, the best so far, the time to go. It only reads the run directory, so it
cannot disturb a sweep, and a second terminal may watch as well."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ftlib.files.repeating import repeating
from ftlib.run.directory import ENDED, Run, State, Trial
from ftlib.run.leaderboard import leaderboard
from ftlib.run.leaderboard_text import to_table
from ftlib.run.plain_text import plain

QUIET_SECONDS = 30.0  # without a line, before one says how things are
SOME = 0.02  # of a trial's work, before a guess at the rest is worth saying
STATES: tuple[State, ...] = ("running", "preempted", "finished", "stopped", "failed")


@dataclass
class Watch:
    """What is watched, since when; `at_most`: trials may end before their last step (early stopping)."""

    run: Run
    total: int
    at_most: bool
    before: float  # trials' worth of work that an earlier driver did
    started: float = field(default_factory=time.monotonic)
    seen: dict[str, str] = field(default_factory=dict)
    told: float = field(default_factory=time.monotonic)  # when the last line was printed


@contextmanager
def watching(run: Run, total: int, console: Console, every: float = 1.0, at_most: bool = False) -> Iterator[None]:
    """Shows the run while the block lasts: a live table on a terminal; elsewhere a line for each change, and one every
    half minute."""
    watch = Watch(run, total, at_most, worked(run.trials()))
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            with _shown(lambda: live.update(_picture(watch, console.width)), every):
                yield
            return
    with _shown(lambda: _print_news(watch, console), every):
        yield


@contextmanager
def _shown(show: Callable[[], None], every: float) -> Iterator[None]:
    """Calls `show` in a thread until the block ends, and once after it. A view that fails never ends a sweep."""
    try:
        with repeating(lambda: _harmless(show), every, "ftlib-watch", patience=5):
            yield
    finally:
        _harmless(show)


def _harmless(show: Callable[[], None]) -> None:
    try:
        show()
    except Exception:  # a half-written file: the next look is a second away
        return


def _picture(watch: Watch, width: int) -> Group:
    return Group(Text(plain(summary(watch)), style="bold"), to_table(leaderboard(watch.run), top=12, width=width))


def summary(watch: Watch) -> str:
    """One line: `4/16 trials done · 2 running · best 1.2345 (003) · 0:41 gone, about 2:10 to go`; of a single trial
    also `step 40 (33%) · loss 1.2345`."""
    run = watch.run
    trials, total = run.trials(), watch.total + run.added
    counts = Counter(trial.state for trial in trials)
    done = sum(counts[state] for state in ENDED)
    parts = [f"{done}/{total} trials done"]
    parts += [f"{counts[state]} {state}" for state in STATES if counts[state]]
    if total == 1 and trials:
        parts += _steps(trials[0])
    board = leaderboard(run)
    if board.best is not None:
        parts.append(f"best {board.metric} {board.best.value:.4f} ({board.best.trial})")
    gone = time.monotonic() - watch.started
    parts.append(f"{_clock(gone)} gone{_to_go(watch, trials, total - done)}")
    return " · ".join(parts)


def _steps(trial: Trial) -> list[str]:
    """Where a trial stands: its step of how many, and its latest loss."""
    rows = trial.metrics()
    if not rows:
        return ["no step logged yet"]
    last, losses = rows[-1], [row["loss"] for row in rows if "loss" in row]
    return [f"step {last['step']} ({last.get('progress', 0.0):.0%})", *[f"loss {loss:.4f}" for loss in losses[-1:]]]


def _to_go(watch: Watch, trials: list[Trial], left: int) -> str:
    """The time that is left, from what this driver has done since it began."""
    done, gone = worked(trials) - watch.before, time.monotonic() - watch.started
    if left <= 0 or done < SOME:
        return ""
    rest = left - sum(_progress(trial) for trial in trials if trial.state not in ENDED)
    word = "at most" if watch.at_most else "about"
    return f", {word} {_clock(gone * rest / done)} to go"


def worked(trials: list[Trial]) -> float:
    """How much is done, in trials: those that have ended, and the part of each running trial that is trained."""
    return sum(1.0 if trial.state in ENDED else _progress(trial) for trial in trials)


def _progress(trial: Trial) -> float:
    rows = trial.metrics()
    return float(rows[-1].get("progress", 0.0)) if rows else 0.0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _print_news(watch: Watch, console: Console) -> None:
    """A line when a trial starts or ends, with the state of the whole when one ends; and every half minute that
    state."""
    changes = list(_changes(watch))
    if not changes and time.monotonic() - watch.told >= QUIET_SECONDS:
        changes = [summary(watch)]
    for line in changes:
        console.print(line, soft_wrap=True, highlight=False)
        watch.told = time.monotonic()


def _changes(watch: Watch) -> Iterator[str]:
    for trial in watch.run.trials():
        state = trial.state
        if watch.seen.get(trial.id) == state or state == "pending":
            continue
        watch.seen[trial.id] = state
        if state == "running":
            params = ", ".join(f"{name}={value}" for name, value in trial.params.items())
            yield f"trial {trial.id} started" + (f": {params}" if params else "")
            continue
        row = next(row for row in leaderboard(watch.run).rows if row.trial == trial.id)
        value = "" if row.value is None else f" {row.value:.4f}"
        reason = f": {row.reason}" if row.reason else ""
        yield f"trial {trial.id} {state}{value}{reason} | {summary(watch)}"
