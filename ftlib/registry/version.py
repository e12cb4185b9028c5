"""A version in the registry, and what a bare name means.

A version is signed by whoever promoted it. Code that comes with its weights or its base runs for this user where this
user has signed it, or says --trust; a manifest alone is not believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ftlib.registry.backend import objects
from ftlib.registry.stored import Location, manifest_in
from ftlib.run import manifest as manifests
from ftlib.run import signature

Kind = Literal["adapter", "model"]


@dataclass(frozen=True)
class Version:
    """One promoted winner, which is never written again. `place` is its folder, or the URL of the registry that has it:
    then its files are brought to whichever machine asks for its `path` or its `weights`, once."""

    name: str
    number: int
    place: Location
    trusted: bool = field(default=False, compare=False)  # by --trust of whoever has found it

    @property
    def id(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def path(self) -> Path:
        """The folder with its weights and its manifest."""
        return self.place if isinstance(self.place, Path) else objects(self.place).bring(self.name, self.number)

    @property
    def is_here(self) -> bool:
        """Whether its files are on this machine."""
        here = self.place if isinstance(self.place, Path) else objects(self.place).here(self.name, self.number)
        return here.is_dir()

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest. What it says of code is left out, unless `may_run_code`. Raises FtlibError for a damaged
        one."""
        told = self._told
        return told if not manifests.asks_for_code(told) or self.may_run_code else manifests.without_code(told)

    @property
    def _told(self) -> dict[str, Any]:
        if isinstance(self.place, Path):
            return manifest_in(self.place)
        return objects(self.place).manifest(self.name, self.number)

    @property
    def may_run_code(self) -> bool:
        """Whether code that comes with the version may run: this user has promoted it, or trusts it."""
        if self.trusted:
            return True
        told = self._told
        return signature.matches(told.get("signature"), *signed_parts(told, self.path / self.kind))

    @property
    def kind(self) -> Kind:
        if isinstance(self.place, Path):
            return "adapter" if (self.place / "adapter").is_dir() else "model"
        return "adapter" if self._told.get("kind") == "adapter" else "model"

    @property
    def weights(self) -> Path:
        return self.path / self.kind

    @property
    def base(self) -> str:
        """The name of the model that all of its training began with."""
        base = self._told.get("base")
        return root_of(base) if base else "?"

    @property
    def parent(self) -> str | None:
        """The version that its training began with, as NAME@NUMBER; None where that was a model from elsewhere. Of a
        merged one, the models that it was merged of."""
        told = self._told
        if told.get("merge"):
            return " + ".join(str(parent["name"]) for parent in told["merge"]["parents"])
        found: str | None = told.get("parent") or ((told.get("base") or {}).get("parent") or {}).get("version")
        return found


@dataclass(frozen=True)
class Alias:
    """What a bare name means: `version`, and while `canary` is tried, that one for `share` of the requests."""

    version: Version
    canary: Version | None = None
    share: float = 0.0


def root_of(base: Mapping[str, Any]) -> str:
    """The name of the first base in a manifest's lineage: the model that is no version of the registry."""
    while base.get("parent"):
        base = base["parent"]["base"]
    return str(base["name_or_path"])


def signed_parts(manifest: Mapping[str, Any], folder: Path) -> tuple[str, str, str]:
    """What a version's signature covers: its manifest, and each file that is not tensors. Tensors run no code."""
    told = {key: value for key, value in manifest.items() if key not in ("signature", "files")}
    sha = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".safetensors"):
        sha.update(f"{file.relative_to(folder)}\0{signature.digest_of(file)}\0".encode())
    return "version", json.dumps(told, sort_keys=True, default=str), sha.hexdigest()
