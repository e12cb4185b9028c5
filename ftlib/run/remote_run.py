"""A run that is kept at a URL, opened from anywhere: found, brought here, believed or not."""

from __future__ import annotations

import shutil
from pathlib import Path

from ftlib.errors import FtlibError, InputError, nearest
from ftlib.files import object_store
from ftlib.files.home import home
from ftlib.files.paths import below
from ftlib.files.urls import is_url
from ftlib.run import signature
from ftlib.run.directory import STAMP, Run, Trial
from ftlib.run.index import Index, read_index
from ftlib.run.layout import (
    ADAPTER,
    BASE,
    MODEL,
    OF_RUN,
    OF_TRIAL,
    OF_TRIAL_BY_DRIVER,
    RESOLVED,
    SIGNATURE,
    TRIALS,
    TUNE,
)
from ftlib.run.places import this_machine, url_of
from ftlib.run.remote_folders import pull_directories


def open_run(place: str) -> Run:
    """A run by its path or its URL; from a URL it is brought here, without checkpoints and weights.

    Raises InputError, with the nearest name beside it, when there is none.
    """
    if not is_url(place):
        return Run.open(place)
    object_store.check_url("RUN", place)
    url = find(place.rstrip("/"))
    run = Run(below(home() / "runs", url.rpartition("/")[2], url))
    if run.path.exists() and (kept := _kept_at(run)) not in (None, url):
        raise InputError(
            f"{run.path} is the run that is kept at {kept}, and {url} has its name: move one of them away."
        )
    if not _is_ours(run, url):
        fetch(url, run.path, whole=())
    return run


def _kept_at(run: Run) -> str | None:
    """Where a run that is here is kept, as far as it says so."""
    try:
        return signature.came_from(run) or url_of(run) or str(run.path)
    except FtlibError:
        return None


def _is_ours(run: Run, url: str) -> bool:
    """Whether this machine's driver was the last one of the run, and the run is here."""
    return (run.path / TUNE).exists() and read_index(url).machine == this_machine()


def find(url: str) -> str:
    """The URL of a run, or of the newest run of an experiment's name. Raises InputError when there is none."""
    if object_store.read(f"{url}/{RESOLVED}") is not None:
        return url
    above, _, name = url.rpartition("/")
    beside = sorted({path.partition("/")[0] for path in object_store.listing(above)} - {".data"})
    same = [candidate for candidate in beside if STAMP.sub("", candidate) == name]
    if not same:
        raise InputError(f"{url} is no run (it has no {RESOLVED}).{nearest(name, beside)}")
    return f"{above}/{same[-1]}"


def fetch(url: str, target: Path, whole: tuple[str, ...] = (ADAPTER, MODEL), tune: bool = True) -> Run:
    """Brings a run from its URL into a directory; `whole` are the directories of trials that come too.

    It is this user's run where all of it is as this user has signed it; where it is not, `signature.check` says which
    file is not. Raises InputError, before anything is written, for names there that are no names of files.
    """
    (target / SIGNATURE).unlink(missing_ok=True)  # it was of what is replaced now
    there = {name: below(target, name, url) for name in object_store.listing(url)}
    files = {name: file for name, file in there.items() if name in OF_RUN or is_of_trial(name)}
    trials = sorted({trial for name in there if (trial := trial_of(name)) and not trial.startswith(".")})
    for name, file in files.items():  # before the indexes, which are written before the files
        object_store.get(f"{url}/{name}", file)
    (target / TRIALS).mkdir(parents=True, exist_ok=True)
    key = signature.key_for(url)
    index = read_index(url, key)
    of_gone = [name for name in index.files if trial_of(name) not in (None, *trials)]
    doubts = [index.missing({*there, *of_gone})]
    for trial in trials:
        of_trial = read_index(f"{url}/trials/{trial}", key)
        doubts += [_doubt(index, of_trial, name, files[name]) for name in files if trial_of(name) == trial]
        doubts.append(pull_directories(of_trial.url, target / TRIALS / trial, whole, key))
    doubts += [index.why_not_file(name, file) for name, file in files.items() if "/" not in name]
    run = Run(target)
    if tune:
        doubts.insert(0, pull_directories(url, target, (TUNE,), key))
    doubt = next(filter(None, doubts), None)
    if doubt is not None:
        signature.doubt(run, doubt, url)
    elif tune and (target / TUNE).exists():
        signature.sign(run)  # what this user has written there is as good as written here
    return run


def trial_of(name: str) -> str | None:
    """The trial that a file of a run belongs to; None for the run's own."""
    parts = name.split("/")
    return parts[1] if parts[0] == TRIALS and len(parts) > 2 else None


def is_of_trial(name: str) -> bool:
    """Whether a name at a run's URL is that of a trial's file which comes alone."""
    parts = name.split("/")
    return len(parts) == 3 and parts[0] == TRIALS and parts[2] in (*OF_TRIAL, *OF_TRIAL_BY_DRIVER)


def _doubt(of_run: Index, of_trial: Index, name: str, file: Path) -> str | None:
    """Why a file that was brought is not believed, as a part of a sentence. The driver signs what it writes, and a
    trial signs what it leaves."""
    _, trial, inside = name.split("/")
    if inside in OF_TRIAL_BY_DRIVER and trial != BASE:
        return of_run.why_not_file(name, file)
    return of_trial.why_not_file(inside, file)


def forget(run: Run, trial: Trial) -> None:
    """Removes a trial's directory, here and at the URL: a later trial of its number must not find its checkpoint."""
    url = url_of(run)
    if url is not None:
        object_store.remove(f"{url}/trials/{trial.id}")
    shutil.rmtree(trial.path, ignore_errors=True)


def bring_weights(run: Run, trial: Trial) -> None:
    """The trial's best weights, where they are only at the run's URL."""
    url = url_of(run)
    if url is not None and trial.weights is None:
        there = f"{url}/trials/{trial.id}"
        doubt = pull_directories(there, trial.path, (ADAPTER, MODEL), signature.key_for(url))
        if doubt is not None:
            signature.doubt(run, doubt, url)
