"""The models of a merge, checked before anything is written: all adapters of one base, or all whole models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftlib.config import ModelSection
from ftlib.config.merging import OF_ADAPTERS, OF_MODELS, Merging
from ftlib.errors import InputError
from ftlib.models.adapters.start import adapter_fingerprint
from ftlib.models.adapters.state import PEFT_CONFIG
from ftlib.models.base import fingerprint
from ftlib.models.merging.adapters import check_adapters, merge_adapters
from ftlib.models.merging.streamed import check_alike, merge_weights

Kind = Literal["adapter", "model"]
WORDS: dict[Kind, str] = {"adapter": "an adapter", "model": "a whole model"}
TOLD = ("run", "trial", "name", "version")  # of a part's manifest: where it comes from


@dataclass(frozen=True)
class Part:
    """A model that is merged: what the user calls it, its folder of weights, and what its manifest says; {} of a whole
    model that has none."""

    name: str
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def kind(self) -> Kind:
        return "adapter" if (self.folder / PEFT_CONFIG).is_file() else "model"

    def facts(self, weight: float) -> dict[str, Any]:
        """What the manifest of the merged model says of it."""
        told = {key: self.manifest[key] for key in TOLD if key in self.manifest}
        of = adapter_fingerprint(self.folder) if self.kind == "adapter" else fingerprint(self.folder)
        called = f"{told['name']}@{told['version']}" if "version" in told else self.name
        return {**told, "name": called, "weight": weight, "fingerprint": of}


class Parts:
    """What becomes one model, and how. Raises InputError for models that do not fit together, or not this method."""

    def __init__(self, how: Merging, parts: Sequence[Part], base: Part | None = None) -> None:
        self.how, self.parts, self.base = how, parts, base
        self.kind = self._kind()
        self.folders = {name: part.folder for name, part in self._named()}
        if self.kind == "adapter":
            _check_bases(parts)
            check_adapters(self.folders, how)
        else:
            check_alike(self.folders)

    def write(self, folder: Path, base: ModelSection) -> None:
        """The merged weights, into a folder that is made here. `base` is that of adapters."""
        if self.kind == "adapter":
            merge_adapters(self.folders, base, self.how, folder)
        else:
            merge_weights(self.folders, self.how, folder)

    def facts(self) -> dict[str, Any]:
        """How it was merged, and of which parents, for a manifest."""
        parents = [part.facts(weight) for part, weight in zip(self.parts, self.how.weights, strict=True)]
        base = {"base": self.base.facts(1.0)} if self.base is not None else {}
        return {**self.how.facts(), "parents": parents, **base}

    @property
    def _all(self) -> list[Part]:
        return [*self.parts, *([self.base] if self.base is not None else [])]

    def _named(self) -> list[tuple[str, Part]]:
        """The models and the base under names that differ: one model may be merged twice."""
        names = [part.name for part in self._all]
        return [
            (name if names.count(name) == 1 else f"{name} (model {place})", part)
            for place, (name, part) in enumerate(zip(names, self._all, strict=True), 1)
        ]

    def _kind(self) -> Kind:
        first = self.parts[0]
        for part in self._all:
            if part.kind != first.kind:
                adapter = part if part.kind == "adapter" else first
                raise InputError(
                    f"{first.name} is {WORDS[first.kind]}, and {part.name} is {WORDS[part.kind]}: compute the adapter "
                    f"into its base first (ftlib merge {adapter.name} OUT)."
                )
        known = OF_ADAPTERS if first.kind == "adapter" else OF_MODELS
        if self.how.method not in known:
            what = "adapters" if first.kind == "adapter" else "whole models"
            raise InputError(f"method {self.how.method} does not merge {what}: use one of {', '.join(known)}.")
        return first.kind


def _check_bases(parts: Sequence[Part]) -> None:
    """Raises InputError, naming both, for adapters whose bases differ by content, or are quantized otherwise."""
    first = parts[0]
    for other in parts[1:]:
        ours, theirs = (_base(part) for part in (first, other))
        if ours[:-1] != theirs[:-1]:
            raise InputError(
                f"{first.name} was trained on {_called(first)}, and {other.name} on {_called(other)}, which is another "
                "model: adapters are merged on one base."
            )
        if ours[-1] != theirs[-1]:
            raise InputError(
                f"{first.name} was trained on a base with quantization {ours[-1] or 'null'}, and {other.name} with "
                f"{theirs[-1] or 'null'}: adapters are merged on one base."
            )


def _base(part: Part) -> tuple[Any, ...]:
    """What says that two bases are one: their content, or name and commit on the Hub; and the quantization."""
    base, model = part.manifest["base"], (part.manifest.get("experiment") or {}).get("model") or {}
    content = base.get("fingerprint")
    return content, None if content else (base["name_or_path"], base.get("revision")), model.get("quantization")


def _called(part: Part) -> str:
    base = part.manifest["base"]
    content = f" ({base['fingerprint'][:12]})" if base.get("fingerprint") else ""
    return f"{base['name_or_path']}{content}"
