"""The registry: winners under a name and a version that never changes.

    $FTLIB_HOME/registry/<name>/
      current.json   the alias: {"version": 3, "history": [1, 2, 3]}, which version the bare name means
      <version>/     adapter/ (PEFT) or model/ (safetensors), and manifest.json: where the weights come from

`support` addresses what the alias points at, `support@2` one version for ever. Promoting writes the next number and
then moves the alias; rolling back moves the alias alone. A promotion cut short leaves a hidden directory, never a
version.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ftlib.errors import InputError, nearest
from ftlib.runs import Run, Trial, home, read_json, write_json

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
Kind = Literal["adapter", "model"]


@dataclass(frozen=True)
class Version:
    """One promoted winner. `path` holds its weights and its manifest, and is never written again."""

    name: str
    number: int
    path: Path

    @property
    def id(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.path / "manifest.json") or {}

    @property
    def kind(self) -> Kind:
        return "adapter" if (self.path / "adapter").is_dir() else "model"

    @property
    def weights(self) -> Path:
        return self.path / self.kind


def promote(run: Run, trial: Trial, name: str) -> Version:
    """Copies a trial's best weights into the registry as the next version of `name`, which then means that version.

    Raises InputError for a name that is not one, and for a trial that failed or whose weights are missing or empty.
    """
    folder = _folder(name)
    weights = _promotable(trial)
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".staged-{secrets.token_hex(6)}"
    try:
        _copy(trial, weights, staged / weights.name.removeprefix(".").removesuffix(".old"))
        with _locked(folder):
            version = _publish(staged, name, {"run": str(run.path), "trial": trial.id})
            history = _alias(folder).get("history", [])
            _point(folder, [*history, version.number])
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return version


def rollback(name: str) -> Version:
    """Points `name` back at the version it meant before. Raises InputError when there is none before."""
    version = current(name)
    with _locked(_folder(name)):
        history = _alias(_folder(name))["history"][:-1]
        if not history:
            raise InputError(
                f"{version.id} is the first version that '{name}' pointed at: there is none to roll back to."
            )
        _point(_folder(name), history)
    return current(name)


def names() -> list[str]:
    """The names that have a version, in order."""
    return sorted(path.parent.name for path in _root().glob("*/current.json") if NAME.fullmatch(path.parent.name))


def versions(name: str) -> list[Version]:
    """The versions of a name, oldest first. Raises InputError for an unknown name."""
    return [Version(name, number, _known(name) / str(number)) for number in _numbers(_known(name))]


def current(name: str) -> Version:
    """The version that the bare name means. Raises InputError for an unknown name."""
    folder = _known(name)
    number = _alias(folder)["version"]
    return Version(name, number, folder / str(number))


def resolve(reference: str) -> Version:
    """`support` or `support@3` as a version. Raises InputError, with the nearest name or the versions there are."""
    name, at, number = reference.partition("@")
    if not at:
        return current(name)
    found = versions(name)
    for version in found:
        if number == str(version.number):
            return version
    raise InputError(f"'{name}' has no version '{number}': there is {', '.join(version.id for version in found)}.")


def _root() -> Path:
    return home() / "registry"


def _folder(name: str) -> Path:
    """Where a name lives. The pattern leaves no room for a separator, so a name is never a path."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot be a registry name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit."
        )
    return _root() / name


def _known(name: str) -> Path:
    folder = _folder(name)
    if not (folder / "current.json").is_file():
        known = names()
        there = (
            f" There is {', '.join(known)}."
            if known
            else " It is empty: promote a trial with 'ftlib promote RUN --as NAME'."
        )
        raise InputError(f"'{name}' is not in the registry.{nearest(name, known) or there}")
    return folder


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def _alias(folder: Path) -> dict[str, Any]:
    return read_json(folder / "current.json") or {}


def _point(folder: Path, history: list[int]) -> None:
    write_json(folder / "current.json", {"version": history[-1], "history": history})


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time moves the alias; the kernel frees the lock when its holder dies."""
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _promotable(trial: Trial) -> Path:
    """The trial's weights, once they have been looked at. Raises InputError, saying what is wrong with them."""
    if trial.state == "failed":
        reason = trial.status.get("reason") or "see its status.json"
        raise InputError(f"{trial.id} failed ({reason}), so it cannot be promoted: choose another trial.")
    weights = trial.weights
    if weights is None:
        raise InputError(f"{trial.id} has saved no weights (it is {trial.state}), so there is nothing to promote.")
    if weights.is_symlink() or any(path.is_symlink() for path in weights.rglob("*")):
        raise InputError(
            f"{weights} holds a symbolic link: put the file itself there, since a version must not change."
        )
    files = sorted(weights.glob("*.safetensors"))
    if not any(_tensors(file)[0] for file in files):
        raise InputError(f"{weights} holds no tensors in safetensors files, so there is nothing to promote.")
    if (weights / "adapter_config.json").exists() and not any(_moves_its_base(file) for file in files):
        raise InputError(
            f"{trial.id}'s adapter changes nothing (its lora_B matrices are all zero): it was never trained."
        )
    return weights


def _copy(trial: Trial, weights: Path, target: Path) -> None:
    """Real, read-only copies. A running trial may replace its weights meanwhile, which mixes two states: refused."""
    before = weights.stat().st_ino
    shutil.copytree(weights, target)
    if trial.weights is None or trial.weights.stat().st_ino != before:
        raise InputError(f"{trial.id} saved new weights while they were being copied: promote it again.")
    for file in target.rglob("*"):
        if file.is_file():
            file.chmod(0o444)
    write_json(target.parent / "manifest.json", trial.manifest)


def _publish(staged: Path, name: str, origin: dict[str, str]) -> Version:
    """Renames `staged` to the next number. Renaming onto a version that exists fails, so no number is given twice."""
    folder = staged.parent
    manifest = read_json(staged / "manifest.json")
    for number in itertools.count(max(_numbers(folder), default=0) + 1):
        stamp = {"name": name, "version": number, "promoted": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(staged / "manifest.json", {**manifest, **stamp, **origin})
        try:
            os.rename(staged, folder / str(number))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            continue
        return Version(name, number, folder / str(number))
    raise AssertionError("numbers do not end")


def _tensors(file: Path) -> tuple[dict[str, Any], int]:
    """(name -> its dtype, shape and byte range, where the bytes start) of a safetensors file, without its tensors.

    The header is eight bytes of length and that much JSON, whatever the dtype: numpy cannot read bfloat16.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        try:
            header = json.loads(opened.read(min(length, 100_000_000)))
        except ValueError:
            raise InputError(f"{file} is no safetensors file, or was cut short.") from None
    header.pop("__metadata__", None)
    return header, 8 + length


def _moves_its_base(file: Path) -> bool:
    """Whether an adapter's B matrices, or all its tensors where it has no B, hold anything but zeros."""
    header, start = _tensors(file)
    decisive = [entry for key, entry in header.items() if "lora_B" in key or "lora_embedding_B" in key]
    with file.open("rb") as opened:
        for entry in decisive or header.values():
            begin, end = entry["data_offsets"]
            opened.seek(start + begin)
            if opened.read(end - begin).strip(b"\0"):
                return True
    return False
