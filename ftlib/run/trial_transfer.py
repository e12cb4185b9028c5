"""A trial's files on their way to the machine that computes it, and back to the URL of its run."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

from ftlib.errors import TrialError
from ftlib.files import object_store
from ftlib.files.atomic import settled
from ftlib.files.json_files import append_row
from ftlib.run import signature
from ftlib.run.context import Setting
from ftlib.run.directory import Run, Trial
from ftlib.run.index import read_index
from ftlib.run.layout import (
    BASE,
    CHECKPOINT,
    OF_TRIAL,
    OF_TRIAL_BY_DRIVER,
    WAITS,
    WHOLE,
)
from ftlib.run.places import data_url, this_machine, url_for
from ftlib.run.remote_folders import pull_directories, push


def download(setting: Setting, trial_id: str | None = None) -> None:
    """Makes this machine hold what a trial needs: the prepared data, and the trial as another machine left it.

    Raises TrialError where the run directory is on another machine and no URL keeps it.
    """
    run = Run(Path(setting.run))
    url = url_for(setting)
    if url is None:
        if not run.path.exists():
            raise TrialError(
                f"{run.path} is not on this machine: set storage to a URL that all nodes reach (s3://, gs://), or to a "
                "folder that they share."
            )
        return
    data = Path(setting.data)
    if not data.exists():
        with contextlib.suppress(
            FileNotFoundError
        ):  # what is not there is prepared again, or missed with its own words
            _bring_data(setting, data)
    if trial_id is not None:
        _bring(run.trial(trial_id), url, setting)


def _bring_data(setting: Setting, data: Path) -> None:
    """Raises TrialError for prepared data that is not the driver's."""
    url = data_url(setting.resolved["storage"], data, setting.data_content)
    with tempfile.TemporaryDirectory(dir=made(data.parent)) as staged:
        came = Path(staged) / data.name
        object_store.get_folder(url, came)
        if setting.data_content and signature.content_of(came) != setting.data_content:
            raise TrialError(f"{url} is not the data that the driver has prepared: somebody changed it; remove it.")
        with contextlib.suppress(OSError):  # another process of this machine has brought it
            came.rename(data)


def made(folder: Path) -> Path:
    """The folder, which is there afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bring(trial: Trial, url: str, setting: Setting) -> None:
    """Raises TrialError for what nobody with the run's key has left there."""
    there = f"{url}/trials/{trial.id}"
    index = read_index(there, setting.key)
    trial.path.mkdir(parents=True, exist_ok=True)
    if not index.is_there or (index.machine == this_machine() and settled(trial.path / CHECKPOINT)):
        return
    doubts = []
    for name in OF_TRIAL:
        with contextlib.suppress(FileNotFoundError):
            object_store.get(f"{there}/{name}", trial.path / name)
        if name in index.files or (trial.path / name).exists():
            doubts.append(index.why_not_file(name, trial.path / name))
    doubts.append(pull_directories(there, trial.path, WHOLE, setting.key))
    doubt = next(filter(None, doubts), None)
    if doubt and setting.key and not setting.trusted:
        shutil.rmtree(trial.path)
        raise TrialError(f"{doubt}: 'ftlib resume --trust' takes it all the same, if you know who has changed it.")


def upload(setting: Setting, trial_id: str) -> None:
    """Carries a trial's directory to the URL: called before an evaluation is reported."""
    url = url_for(setting)
    if url is None:
        return
    trial = Run(Path(setting.run)).trial(trial_id)
    there, began = f"{url}/trials/{trial_id}", time.time()
    away: list[str] = []
    with object_store.telling(away.append):
        names = (*OF_TRIAL, *(OF_TRIAL_BY_DRIVER if trial_id == BASE else ()))
        push(trial.path, there, WHOLE, {n: trial.path / n for n in names if (trial.path / n).exists()}, setting.key)
    if away:  # the driver makes an event of it
        append_row(trial.path / WAITS, {"time": began, "seconds": round(time.time() - began, 1), "why": away[0]})
        push(trial.path, there, (), {WAITS: trial.path / WAITS}, setting.key)
