"""Ray Tune's own state in the run directory, as one folder that is whole at any moment.

Tune copies three files (trials, counters, searcher) over the last ones while it goes on; killed meanwhile, it finds an
empty file, and begins the sweep again from nothing. Here they are replaced together.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ftlib.errors import FtlibError
from ftlib.files.atomic import replace_directory, settled

STATE = "state"
KINDS = ("experiment_state-*", "search_gen_state-*", "searcher-state-*", "callback-states-*")


def keep(written: Path, tune: Path) -> None:
    """Makes the files that Tune has written into `written` the state of a run."""
    staged = tune / f".{STATE}.{os.getpid()}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for file in _files(written):
        shutil.copy2(file, staged / file.name)
    replace_directory(staged, tune / STATE)


def has_state(tune: Path) -> bool:
    """Whether Tune has written a state of the run."""
    return settled(tune / STATE) is not None


def lay_out(tune: Path) -> None:
    """Puts the state where `Tuner.restore` looks for it. Raises FtlibError where there is none."""
    state = settled(tune / STATE)
    if state is None:
        raise FtlibError(f"{tune.parent} ended before its first trial started: run the experiment again.")
    for file in _files(tune):
        file.unlink()
    for file in _files(state):
        shutil.copy2(file, tune / file.name)


def _files(folder: Path) -> list[Path]:
    return [file for kind in KINDS for file in folder.glob(kind)]
