"""The registry: winners under a name and a version that never changes.

    $FTLIB_HOME/registry/<name>/
      current.json   the alias: {"version": 3, "history": [1, 2, 3]}, which version the bare name means; while a new
                     version is tried on a share of the traffic also "canary": {"version": 4, "share": 0.1}
      <version>/     adapter/ (PEFT) or model/ (safetensors), and manifest.json: where the weights come from

`support` addresses what the alias points at, `support@2` one version for ever. Promoting writes the next number and
then moves the alias; rolling back moves the alias alone. A move is one rename under a lock, so whoever reads the alias
sees it before or after. A promotion cut short leaves a hidden directory, never a version.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ftlib import weights
from ftlib.errors import FtlibError, InputError, nearest
from ftlib.runs import Run, Trial, home, read_json, write_json
from ftlib.weights import Engine, moves_its_base, tensors

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


@dataclass(frozen=True)
class Alias:
    """What a bare name means: `version`, and while `canary` is tried, that one for `share` of the requests."""

    version: Version
    canary: Version | None = None
    share: float = 0.0


def promote(
    run: Run,
    trial: Trial,
    name: str,
    canary: float | None = None,
    examine: Callable[[Version], Mapping[str, Any]] = lambda staged: {},
) -> Version:
    """Copies a trial's best weights into the registry as the next version of `name`, which then means that version.

    With `canary`, a share between 0 and 1, `name` goes on meaning what it means, but for that share of the requests. A
    canary that was there ends either way. `examine` sees the copy before it has a number, may still change it, and
    returns what goes into its manifest; whatever it raises ends the promotion.

    Raises InputError for a name that is not one, for a trial that failed or whose weights are missing or empty, for a
    share that is none, and for a canary of a name that has no version yet.
    """
    folder = _folder(name)
    if canary is not None:
        _check_share(canary)
        alias(name)  # a canary needs a version beside it
    origin = _promotable(trial)
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".staged-{secrets.token_hex(6)}"
    try:
        _copy(trial, origin, staged / origin.name.removeprefix(".").removesuffix(".old"))
        found = examine(Version(name, 0, staged))
        _make_read_only(staged)
        with _locked(folder):
            version = _publish(staged, name, {**found, "run": str(run.path), "trial": trial.id})
            state = _read(folder)
            if canary is None:
                _write(folder, [*state.get("history", []), version.number])
            else:
                _write(folder, state["history"], {"version": version.number, "share": canary})
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return version


def canary(name: str, share: float) -> Alias:
    """Moves the canary of `name` to another share of the requests: 0 ends it, 1 makes it what the name means.

    Raises InputError when there is no canary, or for a share that is none.
    """
    _check_share(share, whole=True)
    folder = _known(name)
    with _locked(folder):
        state = _read(folder)
        if state.get("canary") is None:
            raise InputError(f"'{name}' has no canary: start one with 'ftlib promote RUN --as {name} --canary SHARE'.")
        tried = state["canary"]["version"]
        if share in (0, 1):
            _write(folder, [*state["history"], tried] if share else state["history"])
        else:
            _write(folder, state["history"], {"version": tried, "share": share})
        return alias(name)


def rollback(name: str) -> Version:
    """Ends the canary of `name`, or without one points it back at the version it meant before; returns what it means.

    Raises InputError when there is neither.
    """
    folder = _known(name)
    with _locked(folder):
        state = _read(folder)
        history = state["history"] if state.get("canary") else state["history"][:-1]
        if not history:
            raise InputError(
                f"{name}@{state['version']} is the first version that '{name}' pointed at: there is none to roll back to."
            )
        _write(folder, history)
        return alias(name).version


def alias(name: str) -> Alias:
    """What the bare name means, read in one go. Raises InputError for an unknown name."""
    folder = _known(name)
    state = _read(folder)
    tried = state.get("canary")
    if tried is None:
        return Alias(_version(folder, state["version"]))
    return Alias(_version(folder, state["version"]), _version(folder, tried["version"]), tried["share"])


def check_loadable(version: Version, *, engine: Engine = "bank", max_rank: int | None = None) -> None:
    """Raises InputError for a version that must not be loaded (links, pickles, damaged files, a rank above `max_rank`)
    or that `engine` cannot serve. Reads headers alone: it takes milliseconds."""
    weights.check(version.id, version.path, engine, max_rank)


def names() -> list[str]:
    """The names that have a version, in order."""
    return sorted(path.parent.name for path in _root().glob("*/current.json") if NAME.fullmatch(path.parent.name))


def versions(name: str) -> list[Version]:
    """The versions of a name, oldest first. Raises InputError for an unknown name."""
    return [Version(name, number, _known(name) / str(number)) for number in _numbers(_known(name))]


def current(name: str) -> Version:
    """The version that the bare name means. Raises InputError for an unknown name."""
    return alias(name).version


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


def _version(folder: Path, number: int) -> Version:
    version = Version(folder.name, number, folder / str(number))
    if not version.path.is_dir():
        raise FtlibError(f"{version.id} is what current.json names, but {version.path} is gone: put it back there.")
    return version


def _read(folder: Path) -> dict[str, Any]:
    """The alias file; empty before the first promotion. Raises FtlibError when somebody damaged it."""
    file = folder / "current.json"
    try:
        state = read_json(file)
        if state is None or _is_alias(state):
            return state or {}
    except (InputError, ValueError, LookupError, TypeError, AttributeError):
        pass
    newest = max(_numbers(folder), default=1)
    raise FtlibError(
        f'{file} is damaged: write {{"version": {newest}, "history": [{newest}]}} into it to serve its newest version.'
    )


def _is_alias(state: dict[str, Any]) -> bool:
    """Whether it is what `_write` writes. Raises LookupError, TypeError or AttributeError for what is none at all."""
    numbers, tried = [state["version"], *state["history"]], state.get("canary")
    if tried is not None:
        numbers.append(tried["version"])
        _check_share(tried["share"])
    return state["history"][-1] == state["version"] and all(type(number) is int for number in numbers)


def _write(folder: Path, history: list[int], tried: dict[str, Any] | None = None) -> None:
    state = {"version": history[-1], "history": history}
    write_json(folder / "current.json", {**state, "canary": tried} if tried else state)


def _check_share(share: float, whole: bool = False) -> None:
    if not (0 <= share <= 1 if whole else 0 < share < 1):  # NaN is neither
        ends = "from 0 (ends the canary) to 1 (makes it the version)" if whole else "between 0 and 1, for example 0.1"
        raise InputError(f"{share} is no share of the requests for a canary: give a number {ends}.")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time moves the alias; the kernel frees the lock when its holder dies."""
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _promotable(trial: Trial) -> Path:
    """The folder of the trial's weights, once they have been looked at. Raises InputError, saying what is wrong with them."""
    if trial.state == "failed":
        reason = trial.status.get("reason") or "see its status.json"
        raise InputError(f"{trial.id} failed ({reason}), so it cannot be promoted: choose another trial.")
    folder = trial.weights
    if folder is None:
        raise InputError(f"{trial.id} has saved no weights (it is {trial.state}), so there is nothing to promote.")
    if folder.is_symlink() or any(path.is_symlink() for path in folder.rglob("*")):
        raise InputError(f"{folder} holds a symbolic link: put the file itself there, since a version must not change.")
    files = sorted(folder.glob("*.safetensors"))
    if not any(tensors(file)[0] for file in files):
        raise InputError(f"{folder} holds no tensors in safetensors files, so there is nothing to promote.")
    if (folder / "adapter_config.json").exists() and not any(moves_its_base(file) for file in files):
        raise InputError(
            f"{trial.id}'s adapter changes nothing (its lora_B matrices are all zero): it was never trained."
        )
    return folder


def _copy(trial: Trial, origin: Path, target: Path) -> None:
    """Real copies, not links. A running trial may replace its weights meanwhile, which mixes two states: refused."""
    before = origin.stat().st_ino
    shutil.copytree(origin, target)
    if trial.weights is None or trial.weights.stat().st_ino != before:
        raise InputError(f"{trial.id} saved new weights while they were being copied: promote it again.")
    write_json(target.parent / "manifest.json", trial.manifest)


def _make_read_only(staged: Path) -> None:
    for file in staged.rglob("*"):
        if file.is_file():
            file.chmod(0o444)


def _publish(staged: Path, name: str, facts: Mapping[str, Any]) -> Version:
    """Renames `staged` to the next number. Renaming onto a version that exists fails, so no number is given twice."""
    folder = staged.parent
    manifest = read_json(staged / "manifest.json")
    for number in itertools.count(max(_numbers(folder), default=0) + 1):
        stamp = {"name": name, "version": number, "promoted": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(staged / "manifest.json", {**manifest, **facts, **stamp})
        try:
            os.rename(staged, folder / str(number))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            continue
        return Version(name, number, folder / str(number))
    raise AssertionError("numbers do not end")
