"""The live view of a run: trials by state, the best so far, the time to go. It only reads the run directory, so it
cannot disturb a sweep, and a second terminal may watch as well."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ftlib.leaderboard import leaderboard, to_table
from ftlib.plain import plain
from ftlib.runs import ENDED, Run, State, Trial

STATES: tuple[State, ...] = ("running", "preempted", "finished", "stopped", "failed")


@contextmanager
def watching(run: Run, total: int, console: Console, every: float = 1.0) -> Iterator[None]:
    """Shows the run while the block lasts: a live table on a terminal, a line for each change elsewhere."""
    started = time.monotonic()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            with _repeating(lambda: live.update(_picture(run, total, started, console.width)), every):
                yield
            return
    seen: dict[str, str] = {}
    with _repeating(lambda: _print_changes(run, total, seen, started, console), every):
        yield


@contextmanager
def _repeating(show: Callable[[], None], every: float) -> Iterator[None]:
    """Calls `show` in a thread until the block ends, and once after it. A view that fails never ends a sweep."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(every):
            _harmless(show)

    thread = threading.Thread(target=loop, name="ftlib-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
        _harmless(show)


def _harmless(show: Callable[[], None]) -> None:
    try:
        show()
    except Exception:  # a half-written file: the next look is a second away
        return


def _picture(run: Run, total: int, started: float, width: int) -> Group:
    return Group(
        Text(plain(summary(run, total, started)), style="bold"), to_table(leaderboard(run), top=12, width=width)
    )


def summary(run: Run, total: int, started: float) -> str:
    """One line: `4/16 trials done · 2 running · best 1.2345 (003) · 0:41 gone, about 2:10 to go`."""
    trials, total = run.trials(), total + run.added
    counts = Counter(trial.state for trial in trials)
    done = sum(counts[state] for state in ENDED)
    parts = [f"{done}/{total} trials done"]
    parts += [f"{counts[state]} {state}" for state in STATES if counts[state]]
    board = leaderboard(run)
    if board.best is not None:
        parts.append(f"best {board.metric} {board.best.value:.4f} ({board.best.trial})")
    gone = time.monotonic() - started
    parts.append(f"{_clock(gone)} gone{_to_go(trials, total, done, gone)}")
    return " · ".join(parts)


def _to_go(trials: list[Trial], total: int, done: int, gone: float) -> str:
    worked = done + sum(_progress(trial) for trial in trials if trial.state == "running")
    if worked < 0.5 or done >= total:
        return ""
    return f", about {_clock(gone * (total - worked) / worked)} to go"


def _progress(trial: Trial) -> float:
    rows = trial.metrics()
    return float(rows[-1].get("progress", 0.0)) if rows else 0.0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _print_changes(run: Run, total: int, seen: dict[str, str], started: float, console: Console) -> None:
    """A line when a trial starts or ends, with the state of the whole when one ends."""
    board = {row.trial: row for row in leaderboard(run).rows}
    for trial in run.trials():
        state = trial.state
        if seen.get(trial.id) == state or state == "pending":
            continue
        seen[trial.id] = state
        if state == "running":
            params = ", ".join(f"{name}={value}" for name, value in trial.params.items())
            console.print(f"trial {trial.id} started: {params}", soft_wrap=True, highlight=False)
            continue
        row = board[trial.id]
        value = "" if row.value is None else f" {row.value:.4f}"
        reason = f": {row.reason}" if row.reason else ""
        line = f"trial {trial.id} {state}{value}{reason} | {summary(run, total, started)}"
        console.print(line, soft_wrap=True, highlight=False)
