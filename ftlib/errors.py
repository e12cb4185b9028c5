"""What can go wrong, as a tree. The exit status of the command line hangs on it.

    FtlibError                 1  the work failed
    ├── InputError             2  what the user gave is wrong
    │   ├── ConfigError           an experiment file, an override or a sweep space
    │   └── DataError             a data file or a row of it
    ├── TrialError             1  a trial could not be trained (NaN, out of memory, zero steps ...)
    ├── StorageError           1  the run directory cannot be written (full, unreachable)
    └── Preempted              1  a trial has left its machine, saved, to go on elsewhere: never shown as an error

Every message is meant for a person: it names the thing to change. Errors cross process boundaries inside Ray,
so each carries nothing but its message and pickles as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FtlibError(Exception):
    """The work failed. `ftlib` prints the message and exits with `exit_status`."""

    exit_status = 1


class InputError(FtlibError):
    """What the user gave is wrong: nothing was started."""

    exit_status = 2


class ConfigError(InputError):
    """An experiment file, an override or a sweep space that cannot be used."""


class DataError(InputError):
    """A data file, or a row of one, that cannot be used."""


class TrialError(FtlibError):
    """One trial could not be trained. The message is what `status.json` keeps as the reason."""


class StorageError(FtlibError):
    """The run directory cannot be written. This is the fault of no trial, so no trial is marked as failed."""


class Preempted(FtlibError):
    """A trial has saved where it stands and has left its machine. This is no failure: the trial continues elsewhere."""


def nearest(word: str, known: Iterable[str], alike: float = 0.6) -> str:
    """` Did you mean 'x'?` for the known word closest to `word`, or an empty string where none is `alike` enough."""
    close = closest(word, known, alike)
    return f" Did you mean '{close}'?" if close is not None else ""


def closest(word: str, known: Iterable[str], alike: float = 0.6) -> str | None:
    """The known word closest to `word`; None where none is `alike` enough (1 is the same word)."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=alike)), None)
