"""Which version a name means now. Follows the registry, so that a promotion or a rollback needs no restart."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from ftlib.errors import FtlibError, nearest
from ftlib.files.json_files import read_json
from ftlib.models.adapter_files import why_not_banked
from ftlib.registry import registry
from ftlib.registry.version import Alias, Version
from serve.engine.messages import BASE, Refusal, Refused, printable

log = logging.getLogger("ray.serve")
PINNED = re.compile(r"[^@]{1,64}@[1-9][0-9]{0,8}")  # a name and a number, written as the registry writes it
DIGITS = re.compile(r"\d+")
KEPT = 1024  # versions that were asked for by number


@dataclass(frozen=True)
class Entry:
    """A name that clients may use: the version behind it, and the one that gets a share of its requests."""

    name: str
    version: Version
    created: int
    canary: Version | None = None
    share: float = 0.0

    @property
    def bare(self) -> bool:
        """Whether the base of the version answers, without the version's adapter."""
        return self.name.endswith(BASE)

    @property
    def versions(self) -> list[Version]:
        return [self.version, *([self.canary] if self.canary else [])]


class Catalog:
    """`names` are what is served ("support", "support@3"); none of them means every name in the registry, whenever it
    gets there. With `base`, "@base" may stand behind each name and version. `ready` says whether something answers for
    a version: until then its name means what it meant. `reach` is told of a version that no name means, which somebody
    asks for: it starts what answers for it."""

    def __init__(
        self,
        names: Sequence[str],
        ready: Callable[[Version], bool] = lambda _: True,
        reach: Callable[[Version], bool] = lambda _: True,
        base: bool = False,
    ) -> None:
        self._names, self._ready, self._reach, self._base = tuple(names), ready, reach, base
        self._entries: dict[str, Entry] = {}
        self._pinned: dict[str, Entry] = {}  # by their numbers, which no name means now
        self._troubles: dict[str, str] = {}
        self._draw = random.Random()

    def refresh(self) -> None:
        """Looks at the registry again. Trouble with one name (said once) leaves it as it was, and the others go on; so
        does trouble with all of it, unless it is the first look: then it is raised."""
        try:
            told = registry.aliases()
        except FtlibError as error:
            if not self._entries:
                raise
            self._complain("Every name", str(error))
            return
        self._troubles.pop("Every name", None)
        entries = {}
        for name in self._names or sorted(told):
            before = self._entries.get(name)
            try:
                entries[name] = self._told(name, before, told.get(name))
                self._troubles.pop(name, None)
            except FtlibError as error:
                self._complain(name, str(error))
                if before is not None and before.version.is_here:
                    entries[name] = before
        self._entries = entries  # in one move: whoever reads meanwhile has the old ones

    def entry(self, name: str, allows: Callable[[str], bool] = lambda _: True) -> Entry:
        """Raises Refused for a name that is not served, which names others that `allows` allows. A version of a served
        name is served too, for ever: where no name means it now, it is looked up, so this may wait for the registry."""
        entries = self._entries
        found = self._found(name)
        if found is not None:
            return found
        if self._base and name.endswith(BASE) and (found := self._found(name.removesuffix(BASE))) is not None:
            return _base(found)
        known = [other for other in entries if allows(other)]
        message = f"model: '{printable(name)}' is not served here.{nearest(name, known)} There is {', '.join(known)}."
        raise Refused(Refusal(message, "model", "model_not_found", 404))

    def _found(self, name: str) -> Entry | None:
        entries = self._entries
        if name in entries:
            return entries[name]
        return self._numbered(name) if PINNED.fullmatch(name) and name.partition("@")[0] in entries else None

    def _numbered(self, name: str) -> Entry | None:
        """A version by its number, whatever its name means now. None where there is none that may be served."""
        for version in self._entries[name.partition("@")[0]].versions:
            if version.id == name:
                return Entry(name, version, created(version))
        if name in self._pinned and self._pinned[name].version.is_here:
            return self._pinned[name]
        try:
            version = registry.resolve(name)
        except FtlibError:
            return None
        try:
            self._reach(version)
        except FtlibError as error:
            log.warning("%s is asked for, and must not be served: %s", name, error)
            return None
        self._pinned[name] = found = Entry(name, version, created(version))
        while len(self._pinned) > KEPT:
            del self._pinned[next(iter(self._pinned))]
        return found

    def route(self, name: str, allows: Callable[[str], bool] = lambda _: True) -> Version:
        """The version that answers this request: the canary, for its share of them."""
        entry = self.entry(name, allows)
        if entry.canary is not None and self._draw.random() < entry.share:
            return entry.canary
        return entry.version

    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def bases(self) -> list[Entry]:
        """Those that are served without an adapter."""
        return [_base(entry) for entry in self.entries() if self._base and has_base(entry.version)]

    def engines(self) -> set[str]:
        """Those that answer for what the names mean now."""
        return {engine_name(version) for entry in self.entries() for version in entry.versions}

    def _told(self, name: str, before: Entry | None, alias: Alias | FtlibError | None) -> Entry:
        if "@" in name:
            if before is not None and before.version.is_here:
                return before
            version = registry.resolve(name)
            if not self._ready(version):
                raise FtlibError(f"nothing answers for {version.id} yet.")
            return Entry(name, version, created(version))
        if isinstance(alias, FtlibError):
            raise alias
        if alias is None:
            alias = registry.alias(name)  # which says what there is instead
        if before is not None and (alias.version, alias.canary, alias.share) == (
            before.version,
            before.canary,
            before.share,
        ):
            return before
        for version in [alias.version, *([alias.canary] if alias.canary else [])]:
            if not self._ready(version):
                raise FtlibError(f"{version.id} is not ready yet.")
        return Entry(name, alias.version, created(alias.version), alias.canary, alias.share)

    def _complain(self, name: str, trouble: str) -> None:
        """Says a trouble once, however often it is met: what libraries say of it has times in it."""
        same = DIGITS.sub("", trouble)
        if self._troubles.get(name) != same:
            self._troubles[name] = same
            log.warning("%s is served as it was: %s", name, trouble)


@lru_cache(maxsize=4096)  # a version never changes, and every request asks
def engine_name(version: Version) -> str:
    """The deployment that answers for a version: the same for versions that one loaded base can answer for."""
    return f"Engine-{hashlib.sha256(base_key(version).encode()).hexdigest()[:12]}"


def base_key(version: Version) -> str:
    """Equal for versions that one loaded base can answer for: the same weights, read in the same way. What is no plain
    LoRA, and a full model, has an engine of its own."""
    if version.kind == "model" or why_not_banked(version.id, version.weights):
        return version.id
    manifest = version.manifest
    told = manifest["experiment"]["model"]  # a key that is not set is one that an older ftlib did not know
    loading = {key: value for key, value in told.items() if value and key not in ("name_or_path", "tokenizer")}
    return json.dumps([manifest["base"], loading], sort_keys=True)


@lru_cache(maxsize=4096)
def labels_of(version: Version) -> bool:
    """Whether the version sorts texts instead of writing them."""
    adapter = read_json(version.weights / "adapter_config.json", dict) or {}
    model = read_json(version.weights / "config.json", dict) or {}
    heads = [adapter.get("task_type") or "", *(model.get("architectures") or [])]
    return any(head == "SEQ_CLS" or head.endswith("ForSequenceClassification") for head in heads)


@lru_cache(maxsize=4096)
def has_base(version: Version) -> bool:
    """Whether the engine of the version holds its base as it was before training: of adapters that stand side by
    side. In the engine of every other version, base and training are one."""
    return version.kind == "adapter" and not why_not_banked(version.id, version.weights) and not labels_of(version)


def _base(entry: Entry) -> Entry:
    """The base of what a name means now. A canary has no share of it. Raises Refused where the engine does not hold
    it."""
    if not has_base(entry.version):
        message = f"model: {entry.version.id} has no '{BASE}' here: its engine holds the trained model alone."
        raise Refused(Refusal(message, "model", "model_not_found", 404))
    return Entry(f"{entry.name}{BASE}", entry.version, entry.created)


def created(version: Version) -> int:
    """When it was promoted, in seconds since 1970."""
    return int(datetime.fromisoformat(version.manifest["promoted"]).timestamp())
