"""The registry: winners under a name and a version that never changes.

    a name     an alias: {"version": 3, "history": [1, 2, 3]}, which version the bare name means; while a new version is
               tried on a share of the traffic also "canary": {"version": 4, "share": 0.1}
    a version  adapter/ (PEFT) or model/ (safetensors), manifest.json: where the weights come from, README.md: its
               model card, and answers.jsonl where the gate had tasks done

A version is signed by whoever promoted it. Code that comes with its weights or its base (`trust_remote_code`, `*.py`)
runs for this user where this user has signed it, or says --trust (`trusting`); a manifest alone is not believed.

`support` addresses what the alias points at, `support@2` one version for ever. Promoting writes the next number and
then moves the alias; rolling back moves the alias alone. A move is one write under a lock, so whoever reads the alias
sees it before or after. A promotion cut short is never a version. `backend.py` knows where all of it lies.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError, InputError, nearest
from ftlib.files.json_files import parse_json
from ftlib.models import adapter_files as weights
from ftlib.models.adapter_files import Engine
from ftlib.registry.backend import backend
from ftlib.registry.folder_backend import FolderBackend
from ftlib.registry.names import NAME, of_number
from ftlib.registry.promotable import copy_weights, promotable
from ftlib.registry.staging import make_read_only
from ftlib.registry.store_backend import StoreBackend
from ftlib.registry.stored import manifest_in
from ftlib.registry.version import Alias, Version, signed_parts
from ftlib.run import manifest as manifests
from ftlib.run import signature
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import MANIFEST, RESOLVED


def register(
    run: Run,
    trial: Trial,
    name: str,
    canary: float | None = None,
    examine: Callable[[Version], Mapping[str, Any]] = lambda staged: {},
    compare: Callable[[Version | None], Mapping[str, Any]] | None = None,
    trust: bool = False,
) -> Version:
    """Copies a trial's best weights into the registry as the next version of `name`, which then means that version.

    With `canary`, a share between 0 and 1, `name` goes on meaning what it means, but for that share of the requests. A
    canary that was there ends either way. `examine` sees the copy before it has a number, may still change it, and
    returns what goes into its manifest; `compare` does so for the version that `name` means until then, or None, and
    again when that is another by the time that the alias is moved. Whatever they raise ends the promotion.

    Code that comes with the weights of a run which is not this user's is refused, and what its manifest says of code is
    not taken over, unless there is `trust`.

    Raises InputError for a name that is not one, for a trial that failed or whose weights are missing or empty, for a
    share that is none, and for a canary of a name that has no version yet.
    """
    from ftlib.registry.card import write_card

    check_name(name)
    if canary is not None:
        _check_share(canary)
        alias(name)  # a canary needs a version beside it
    origin = promotable(trial)
    place = backend()
    trusted = trust or signature.why_foreign(run) is None
    with place.staging(name) as staged:
        copy_weights(trial, origin, staged / origin.name.removeprefix(".").removesuffix(".old"), trusted)
        copied = Version(name, 0, staged, trusted)
        weights.check_code(f"trial {trial.id} of {run.name}", copied.weights, trusted)
        found = dict(examine(copied))
        while True:  # again where another promotion came first: what was compared, and its card, are of the old version
            before = _meant(place, name) if compare else None
            found |= compare(before) if compare else {}
            write_card(staged, name, {**manifest_in(staged), **found}, run, trial)
            make_read_only(staged)
            place.carry(name, staged)
            with place.moving(name) as move:
                now = _meant(place, name) if compare else None
                if now == before:
                    state = _read(place, name)
                    version = _publish(place, name, staged, {**found, "run": str(run.path), "trial": trial.id})
                    if canary is None:
                        move(_state([*state.get("history", []), version.number]))
                    else:
                        move(_state(state["history"], {"version": version.number, "share": canary}))
                    return version


def register_made(name: str, make: Callable[[Path, str], Mapping[str, Any]]) -> Version:
    """What `make` puts into a folder (adapter/ or model/, a manifest, a card) as the next version of `name`, which then
    means that version.

    `make` gets the folder and the name, and returns what goes into the manifest besides. What it raises ends it, with
    the registry as it was. Raises InputError for a name that is not one.
    """
    check_name(name)
    place = backend()
    with place.staging(name) as staged:
        staged.mkdir()
        facts = dict(make(staged, name))
        make_read_only(staged)
        place.carry(name, staged)
        with place.moving(name) as move:
            history = _read(place, name).get("history", [])
            version = _publish(place, name, staged, facts)
            move(_state([*history, version.number]))
            return version


def canary(name: str, share: float) -> Alias:
    """Moves the canary of `name` to another share of the requests: 0 ends it, 1 makes it what the name means.

    Raises InputError when there is no canary, or for a share that is none.
    """
    _check_share(share, whole=True)
    place = _known(name)
    with place.moving(name) as move:
        state = _read(place, name)
        if state.get("canary") is None:
            raise InputError(f"'{name}' has no canary: start one with 'ftlib promote RUN --as {name} --canary SHARE'.")
        tried = state["canary"]["version"]
        if share in (0, 1):
            told = _state([*state["history"], tried] if share else state["history"])
        else:
            told = _state(state["history"], {"version": tried, "share": share})
        meant = _whole(place, name, told)
        move(told)
        return meant


def rollback(name: str) -> Version:
    """Ends the canary of `name`, or without one points it back at the version it meant before; returns what it means.

    Raises InputError when there is neither, and FtlibError when that version is gone or damaged: nothing is moved then.
    """
    place = _known(name)
    with place.moving(name) as move:
        state = _read(place, name)
        history = state["history"] if state.get("canary") else state["history"][:-1]
        if not history:
            raise InputError(
                f"{name}@{state['version']} is the first version that '{name}' pointed at: there is none to roll back "
                "to."
            )
        told = _state(history)
        meant = _whole(place, name, told)
        move(told)
        return meant.version


def alias(name: str) -> Alias:
    """What the bare name means, read in one go. Raises InputError for an unknown name."""
    check_name(name)
    place = backend()
    content = place.alias(name)
    if content is None:
        raise _unknown(place, name)
    return _alias(place, name, content)


def aliases() -> dict[str, Alias | FtlibError]:
    """What every name means, all read at one time. For a damaged alias, the error."""
    place, found = backend(), dict[str, Alias | FtlibError]()
    for name, content in place.aliases().items():
        try:
            found[name] = _alias(place, name, content)
        except FtlibError as error:
            found[name] = error
    return found


def check_manifest(version: Version) -> None:
    """Raises FtlibError for a version whose manifest is damaged, or does not say what its weights stand on."""
    manifests.needed(version.manifest, version.id, "kind", "base", "experiment", "promoted")


def check_loadable(version: Version, *, engine: Engine = "bank", max_rank: int | None = None) -> None:
    """Raises InputError for a version that must not be loaded (links, pickles, code that nobody trusts, damaged files,
    a rank above `max_rank`) or that `engine` cannot serve. Reads headers alone: it takes milliseconds."""
    weights.check(version.id, version.path, engine, max_rank)
    if weights.why_code(version.weights) is not None:
        weights.check_code(version.id, version.weights, version.may_run_code)


def manifest_of(folder: Path, trust: bool = False) -> dict[str, Any]:
    """The manifest beside a folder of weights in a run or a version, which is believed of code where that is this
    user's.

    Raises InputError where there is none, and for code that comes with weights of others, unless there is `trust`.
    """
    told = manifest_in(folder.parent)
    if not told:
        raise InputError(f"{folder} has no {MANIFEST} beside it, which would name its base.")
    run = Run(folder.parents[2])
    ours = (run.path / RESOLVED).is_file() and signature.why_foreign(run) is None
    ours = ours or signature.matches(told.get("signature"), *signed_parts(told, folder))
    weights.check_code(str(folder), folder, trust or ours)
    return told if trust or ours else manifests.without_code(told)


_trusting = False


@contextlib.contextmanager
def trusting(trust: bool = True) -> Iterator[None]:
    """While the block lasts, versions that this process finds may run the code that comes with them (--trust)."""
    before = _trusting
    trust_versions(trust or before)
    try:
        yield
    finally:
        trust_versions(before)


def trust_versions(trust: bool) -> None:
    """As `trusting`, until the process ends. For processes that serve nothing else."""
    global _trusting
    _trusting = trust


def names() -> list[str]:
    """The names that have a version, in order."""
    return backend().names()


def versions(name: str) -> list[Version]:
    """The versions of a name, oldest first. Raises InputError for an unknown name."""
    place = _known(name)
    return [Version(name, number, place.at(name, number), _trusting) for number in place.numbers(name)]


def current(name: str) -> Version:
    """The version that the bare name means. Raises InputError for an unknown name."""
    return alias(name).version


def resolve(reference: str) -> Version:
    """`support` or `support@3` as a version. Raises InputError, with the nearest name or the versions there are."""
    name, at, number = reference.partition("@")
    if not at:
        return current(name)
    return of_number(versions(name), number, f"'{name}'")


def check_name(name: str) -> None:
    """Raises InputError for what cannot be a name. The pattern leaves no room for a separator: a name is never a
    path."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot be a registry name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', starting with a letter "
            "or digit."
        )


def _known(name: str) -> FolderBackend | StoreBackend:
    """The backend that holds a name. Raises InputError for an unknown name."""
    check_name(name)
    place = backend()
    if place.alias(name) is None:
        raise _unknown(place, name)
    return place


def _unknown(place: FolderBackend | StoreBackend, name: str) -> InputError:
    known = place.names()
    there = (
        f" There is {', '.join(known)}."
        if known
        else " It is empty: promote a trial with 'ftlib promote RUN --as NAME'."
    )
    return InputError(f"'{name}' is not in the registry.{nearest(name, known) or there}")


def _meant(place: FolderBackend | StoreBackend, name: str) -> Version | None:
    """The version that a name means; None for a name that has no version yet."""
    content = place.alias(name)
    return None if content is None else _alias(place, name, content).version


def _whole(place: FolderBackend | StoreBackend, name: str, state: dict[str, Any]) -> Alias:
    """What a name will mean with this state, checked before the state is written. Raises FtlibError for a version that
    is gone or damaged."""
    told = _alias(place, name, json.dumps(state).encode())
    for version in (told.version, told.canary):
        if version is not None:
            place.manifest(name, version.number)
    return told


def _alias(place: FolderBackend | StoreBackend, name: str, content: bytes) -> Alias:
    state = _parsed(place, name, content)

    def version(number: int) -> Version:
        place.check(name, number)
        return Version(name, number, place.at(name, number), _trusting)

    tried = state.get("canary")
    if tried is None:
        return Alias(version(state["version"]))
    return Alias(version(state["version"]), version(tried["version"]), tried["share"])


def _read(place: FolderBackend | StoreBackend, name: str) -> dict[str, Any]:
    """The state of a name; empty before the first promotion. Raises FtlibError when somebody damaged it."""
    content = place.alias(name)
    return {} if content is None else _parsed(place, name, content)


def _parsed(place: FolderBackend | StoreBackend, name: str, content: bytes) -> dict[str, Any]:
    try:
        state: dict[str, Any] = parse_json(content)
        if _is_alias(state):
            return state
    except (InputError, ValueError, LookupError, TypeError, AttributeError):
        pass
    newest = max(place.numbers(name), default=1)
    raise FtlibError(
        f'{place.alias_at(name)} is damaged: write {{"version": {newest}, "history": [{newest}]}} into it to serve its '
        "newest version."
    )


def _state(history: list[int], tried: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of an alias."""
    state = {"version": history[-1], "history": history}
    return {**state, "canary": tried} if tried else state


def _is_alias(state: dict[str, Any]) -> bool:
    """Whether a value is the content of an alias, as `_state` makes it. Raises LookupError, TypeError or AttributeError
    for a value of another shape."""
    numbers, tried = [state["version"], *state["history"]], state.get("canary")
    if tried is not None:
        numbers.append(tried["version"])
        _check_share(tried["share"])
    return state["history"][-1] == state["version"] and all(type(number) is int and number > 0 for number in numbers)


def _check_share(share: float, whole: bool = False) -> None:
    if not (0 <= share <= 1 if whole else 0 < share < 1):  # NaN is neither
        ends = "from 0 (ends the canary) to 1 (makes it the version)" if whole else "between 0 and 1, for example 0.1"
        raise InputError(f"{share} is no share of the requests for a canary: give a number {ends}.")


def _publish(place: FolderBackend | StoreBackend, name: str, staged: Path, facts: Mapping[str, Any]) -> Version:
    """Makes the staged files the version with the next number."""
    told = manifest_in(staged)
    kind, promoted = Version(name, 0, staged).kind, datetime.now(UTC).isoformat(timespec="seconds")

    def manifest(number: int) -> dict[str, Any]:
        whole = {**told, **facts, "kind": kind, "name": name, "version": number, "promoted": promoted}
        return {**whole, "signature": signature.mac(*signed_parts(whole, staged / kind))}

    number = place.publish(name, staged, manifest)
    return Version(name, number, place.at(name, number))
