"""A run brought to a desk, from a cluster as one tar or from its URL: what reads runs, without what resumes them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError
from ftlib.files.atomic import link, replace_directory, write_text
from ftlib.files.json_files import damaged, read_json
from ftlib.files.paths import below
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import ADAPTER, CHECKPOINT, MODEL, NESTED, RESOLVED, TUNE, WANDB
from ftlib.run.leaderboard import leaderboard, write_leaderboard
from ftlib.run.remote_run import bring_weights, fetch, find

READY = "ftlib: archive "  # how the line of a job's log begins that says where its archive lies
WEIGHTS = (ADAPTER, MODEL)
LEFT_OUT = (TUNE, NESTED, CHECKPOINT, WANDB, *WEIGHTS)  # to resume from, for W&B's own sync, or taken apart

# Python before 3.11.4 has no such filter: plain files below the folder are all that gets as far as this.
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def write_archive(run: Run, target: Path, weights: str) -> dict[str, Any]:
    """Writes the tar, also of a run that is going on; says its size and its SHA-256."""
    best = write_leaderboard(run).best
    wanted = [
        trial for trial in run.trials() if weights == "all" or (weights == "best" and best and trial.id == best.trial)
    ]
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=run.path) as folder:
        held = {trial.id: _hold(trial, Path(folder) / trial.id) for trial in wanted}
        with tarfile.open(
            target, "w", dereference=True
        ) as out:  # files that are one on disk (hard links) come as files
            for file in _readable(run.path):
                with contextlib.suppress(FileNotFoundError):  # it was replaced, or of a trial that is gone
                    out.add(file, arcname=file.relative_to(run.path).as_posix(), recursive=False)
            for trial, kept in held.items():
                for file in sorted(file for file in kept.rglob("*") if file.is_file()):
                    out.add(file, arcname=f"trials/{trial}/{file.relative_to(kept).as_posix()}", recursive=False)
    with target.open("rb") as opened:
        return {"bytes": target.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _readable(folder: Path) -> Iterator[Path]:
    """What of a run can be read with `cat`."""
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        hidden = any(part.startswith(".") or part in LEFT_OUT for part in parts)
        if file.is_file() and not file.is_symlink() and not hidden:
            yield file


def _hold(trial: Trial, folder: Path, tries: int = 20) -> Path:
    """A trial's weights as they are at one moment, in links: its next evaluation may replace them meanwhile."""
    for _ in range(tries):
        weights = trial.weights
        if weights is None:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        before = weights.stat().st_ino
        kind = weights.name.removeprefix(".").removesuffix(".old")
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(weights, folder / kind, copy_function=link)
            if trial.weights is not None and trial.weights.stat().st_ino == before:
                return folder
    raise FtlibError(f"trial {trial.id} replaces its weights too often to be copied: pull when it has ended.")


def read_archive(source: Path, sha256: str, target: Path) -> Run:
    """Unpacks a tar into the run directory `target`, in the place of what was pulled there before.

    Raises FtlibError for a tar that was cut short or holds what no run holds.
    """
    with source.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != sha256:
            raise FtlibError("the archive came damaged or cut short: pull again.")
    staged = target.with_name(f".{target.name}.pulled")
    shutil.rmtree(staged, ignore_errors=True)  # of a pull that was cut short
    try:
        _unpack(source, staged)
        _point_home(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_directory(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Run(target)


def _unpack(source: Path, folder: Path) -> None:
    """Raises FtlibError, before anything is written, for what no run holds: a link, a device, a name that leads out."""
    try:
        with tarfile.open(source, "r:") as tar:
            for member in tar.getmembers():
                below(folder, member.name, "the archive")
                if not member.isreg() or member.issparse():
                    raise FtlibError(f"the archive holds '{member.name}', which is no plain file: it was not unpacked.")
            tar.extractall(folder, **SAFELY)
    except tarfile.TarError as error:
        raise FtlibError(f"the archive is none that ftlib has written ({error}): pull again.") from None


def _point_home(folder: Path) -> None:
    """Manifests name the base by its path on the cluster: here it is the folder that was sent, while that is there."""
    resolved = folder / RESOLVED
    parcel = (read_json(resolved, dict) or {}).get("parcel") or {"root": "", "inputs": {}}
    if not isinstance(parcel, dict) or not isinstance(parcel.get("inputs"), dict):
        raise damaged(resolved, "its parcel is none")
    for file in filter(Path.exists, [resolved, *folder.glob("trials/*/manifest.json")]):
        text = file.read_text(encoding="utf-8", errors="replace")
        for inside, here in parcel["inputs"].items():
            if isinstance(here, str) and Path(here).exists():
                text = text.replace(_quoted(f"{parcel['root']}/{inside}"), _quoted(here))
        write_text(file, text)


def _quoted(path: str) -> str:
    return json.dumps(path)[1:-1]


def pull_run(url: str, target: Path, weights: str) -> Run:
    """Brings a run from its URL to be read here, with the weights of `all` trials, of the `best`, or of `none`.

    Raises InputError when there is no run.
    """
    run = fetch(find(url.rstrip("/")), target, whole=(), tune=False)
    best = leaderboard(run).best
    for trial in run.trials():
        if weights == "all" or (weights == "best" and best is not None and trial.id == best.trial):
            bring_weights(run, trial)
    return run
