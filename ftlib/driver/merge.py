"""`ftlib merge`: an adapter computed into its base, or several models merged into one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftlib.config import ModelSection
from ftlib.config.merging import OF_ADAPTERS, OF_MODELS, Merging
from ftlib.driver.contenders import trial_of, weights_of
from ftlib.errors import InputError, nearest
from ftlib.files.atomic import replace_directory, write_json, write_text
from ftlib.files.json_files import read_json
from ftlib.models import adapter_files
from ftlib.models.adapters.merge import merge
from ftlib.models.adapters.start import adapter_fingerprint
from ftlib.models.adapters.state import PEFT_CONFIG
from ftlib.models.base import fingerprint, load_tokenizer, where
from ftlib.models.merging.adapters import check_adapters, merge_adapters
from ftlib.models.merging.streamed import check_alike, merge_weights
from ftlib.registry import registry
from ftlib.registry.bases import REGISTRY, base_of
from ftlib.registry.card import CARD, card
from ftlib.registry.gate import pass_gate
from ftlib.registry.stored import manifest_in
from ftlib.registry.version import Version
from ftlib.run.layout import MANIFEST

Kind = Literal["adapter", "model"]
WORDS: dict[Kind, str] = {"adapter": "an adapter", "model": "a whole model"}
KEPT = ("base", "experiment", "labels", "chat_template")  # of the first model's manifest: how it is loaded and asked


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
        told = {key: self.manifest[key] for key in ("run", "trial", "name", "version") if key in self.manifest}
        of = adapter_fingerprint(self.folder) if self.kind == "adapter" else fingerprint(self.folder)
        called = f"{told['name']}@{told['version']}" if "version" in told else self.name
        return {**told, "name": called, "weight": weight, "fingerprint": of}


def part_of(name: str, trust: bool = False) -> Part:
    """A model of the command line: registry:NAME[@N] or NAME[@N], a run (its best trial), RUN/trials/ID, a folder of
    weights, a GGUF file.

    Raises InputError for what is not there, and for code that comes with it, unless there is `trust`.
    """
    path = Path(name).expanduser()
    if "/" in name and not name.startswith(REGISTRY) and not path.exists():
        raise InputError(f"there is no folder '{name}'.{nearest(path.name, _beside(path))}")
    if name.startswith(REGISTRY) or not path.exists():
        version = registry.resolve(name.removeprefix(REGISTRY))
        registry.check_loadable(version)
        return Part(version.id, version.weights, version.manifest)
    trial = trial_of(path)
    folder = (weights_of(trial) if trial is not None else path).absolute()
    if (folder / PEFT_CONFIG).is_file() or trial is not None:
        return Part(name, folder, registry.manifest_of(folder, trust))
    folder = Path(where(ModelSection(name_or_path=str(folder)), "MODEL"))
    if not (folder / "config.json").is_file():
        raise InputError(f"'{name}' is no folder of weights: it has neither {PEFT_CONFIG} nor config.json.")
    adapter_files.check_code(name, folder, trust)
    return Part(name, folder, manifest_in(folder.parent) if folder.name == "model" else {})


def _beside(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []


def into_base(adapter: str, out: Path, trust: bool = False) -> None:
    """Computes an adapter into its base, and writes the model into `out`. Raises InputError for what cannot be
    computed into it."""
    with registry.trusting(trust):
        part = part_of(adapter, trust)
        if part.kind == "model":
            raise InputError(f"{adapter} is a whole model already: there is nothing to merge.")
        merge(part.folder, base_of(part.manifest, adapter), out)


def merge_models(
    how: Merging, name: str | None = None, out: Path | None = None, gate: bool = True, trust: bool = False
) -> Version | Path:
    """Merges models, and makes the result the next version of `name`, or a folder like a version's at `out`: adapter/
    or model/, a manifest with its parents, and a model card.

    Raises InputError for models that do not fit together, and FtlibError where the gate holds the result back.
    """
    with registry.trusting(trust):
        making = _Making(how, trust, gate)
        if name is not None:
            return registry.register_made(name, making.make)
        assert out is not None
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} is there already: name a folder that is not.")
        staged = out.with_name(f".{out.name}.staged")
        shutil.rmtree(staged, ignore_errors=True)
        try:
            manifest = making.make(staged, out.name)
            write_json(staged / MANIFEST, {**manifest_in(staged), **manifest})
            replace_directory(staged, out)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return out


class _Making:
    """One merge, checked before anything is written."""

    def __init__(self, how: Merging, trust: bool, gate: bool) -> None:
        self.how, self.gate = how, gate
        self.parts = [part_of(name, trust) for name in how.models]
        self.base = part_of(how.base, trust) if how.base is not None else None
        self.kind = self._kind()
        self.folders = {name: part.folder for name, part in self._named()}
        if self.kind == "adapter":
            _check_bases(self.parts)
            check_adapters(self.folders, how)
        else:
            check_alike(self.folders)

    def _named(self) -> list[tuple[str, Part]]:
        """The models and the base under names that differ: one model may be merged twice."""
        all_parts = [*self.parts, *([self.base] if self.base is not None else [])]
        names = [part.name for part in all_parts]
        return [
            (name if names.count(name) == 1 else f"{name} (model {place})", part)
            for place, (name, part) in enumerate(zip(names, all_parts, strict=True), 1)
        ]

    def _kind(self) -> Kind:
        first = self.parts[0]
        for part in [*self.parts, *([self.base] if self.base is not None else [])]:
            if part.kind != first.kind:
                adapter = part if part.kind == "adapter" else first
                raise InputError(
                    f"{first.name} is {WORDS[first.kind]}, and {part.name} is {WORDS[part.kind]}: compute the adapter "
                    f"into its base first (ftlib merge {adapter.name} OUT)."
                )
        known = OF_ADAPTERS if first.kind == "adapter" else OF_MODELS
        if self.how.method not in known:
            what = "adapters" if first.kind == "adapter" else "whole models"
            raise InputError(f"--method {self.how.method} does not merge {what}: use one of {', '.join(known)}.")
        return first.kind

    def make(self, folder: Path, name: str) -> dict[str, Any]:
        """Fills a folder with the weights and the card of a version of `name`; returns what its manifest says
        besides."""
        weights, first = folder / self.kind, self.parts[0]
        told = {key: first.manifest[key] for key in KEPT if key in first.manifest}
        if self.kind == "adapter":
            merge_adapters(self.folders, base_of(first.manifest, first.name), self.how, weights)
        else:
            merge_weights(self.folders, self.how, weights)
            told = {**_untrained(first, name), **told}
        write_json(folder / MANIFEST, {**told, "merge": self._facts()})
        facts: dict[str, Any] = {"kind": self.kind, "gate": self._pass_gate(Version(name, 0, folder, True))}
        write_text(folder / CARD, card(name, {**manifest_in(folder), **facts}, {}, {}))
        return facts

    def _facts(self) -> dict[str, Any]:
        parents = [part.facts(weight) for part, weight in zip(self.parts, self.how.weights, strict=True)]
        base = {"base": self.base.facts(1.0)} if self.base is not None else {}
        return {**self.how.facts(), "parents": parents, **base}

    def _pass_gate(self, staged: Version) -> dict[str, Any]:
        if not self.gate:
            return {"passed": None, "skipped": "--no-gate"}
        return pass_gate(staged, "the merged model").found


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


def _untrained(part: Part, name: str) -> dict[str, Any]:
    """How a whole model is loaded and asked that has no manifest."""
    section = ModelSection(name_or_path=str(part.folder))
    config = read_json(part.folder / "config.json", dict) or {}
    classes = any("SequenceClassification" in str(kind) for kind in config.get("architectures") or ())
    labels = [str(label) for _, label in sorted((config.get("id2label") or {}).items(), key=lambda item: int(item[0]))]
    template = None if classes else load_tokenizer(section).chat_template
    return {
        "base": {"name_or_path": str(part.folder), "revision": None, "fingerprint": fingerprint(part.folder)},
        "experiment": {
            "name": name,
            "model": {"name_or_path": str(part.folder)},
            "data": {"train": "none"},
            "method": {"type": "classify" if classes else "sft"},
        },
        **({"labels": labels} if classes and labels else {}),
        **({"chat_template": template} if template else {}),
    }
