"""`ftlib merge`: an adapter computed into its base, or several models merged into one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ftlib.config import Experiment, Merge, ModelSection
from ftlib.config.merging import Merging
from ftlib.driver.contenders import trial_of, weights_of
from ftlib.errors import InputError, nearest
from ftlib.files.atomic import replace_directory, write_json, write_text
from ftlib.files.json_files import read_json
from ftlib.models import adapter_files
from ftlib.models.adapters.merge import merge
from ftlib.models.adapters.state import PEFT_CONFIG
from ftlib.models.base import fingerprint, load_tokenizer, where
from ftlib.models.merging.parts import Part, Parts
from ftlib.registry import registry
from ftlib.registry.bases import REGISTRY, base_of
from ftlib.registry.card import CARD, card
from ftlib.registry.gate import pass_gate
from ftlib.registry.stored import manifest_in
from ftlib.registry.version import Version
from ftlib.run.layout import MANIFEST

KEPT = ("base", "experiment", "labels", "chat_template")  # of the first model's manifest: how it is loaded and asked


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


def looked_up(experiment: Experiment) -> Experiment:
    """An experiment of `method: {type: merge}` with the folder of each of its models. Raises InputError as
    `part_of`."""
    assert isinstance(experiment.method, Merge)
    tree, trust = experiment.to_dict(), experiment.model.trust_remote_code
    with registry.trusting(trust):
        found = {name: part_of(model, trust).folder for name, model in experiment.method.models.items()}
    tree["method"]["models"] = {name: str(folder) for name, folder in found.items()}
    return Experiment.parse(tree)


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
        base = part_of(how.base, trust) if how.base is not None else None
        self.merged = Parts(how, [part_of(name, trust) for name in how.models], base)
        self.gate = gate

    def make(self, folder: Path, name: str) -> dict[str, Any]:
        """Fills a folder with the weights and the card of a version of `name`; returns what its manifest says
        besides."""
        kind, first = self.merged.kind, self.merged.parts[0]
        untrained = {} if kind == "adapter" else _untrained(first, name)
        told = {**untrained, **{key: first.manifest[key] for key in KEPT if key in first.manifest}}
        own = ModelSection(name_or_path=str(first.folder))
        self.merged.write(folder / kind, base_of(first.manifest, first.name) if kind == "adapter" else own)
        write_json(folder / MANIFEST, {**told, "merge": self.merged.facts()})
        facts: dict[str, Any] = {"kind": kind, "gate": self._pass_gate(Version(name, 0, folder, True))}
        write_text(folder / CARD, card(name, {**manifest_in(folder), **facts}, {}, {}))
        return facts

    def _pass_gate(self, staged: Version) -> dict[str, Any]:
        if not self.gate:
            return {"passed": None, "skipped": "--no-gate"}
        return pass_gate(staged, "the merged model").found


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
