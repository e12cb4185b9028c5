"""Versions of the registry as bases: `registry:NAME` wherever an experiment names a model.

A whole model is used where it lies. An adapter is merged into its base once, under FTLIB_HOME/cache/merged, by content;
`lineage.json` in that folder says which version on which base it is. Whoever was trained on it keeps that in its
manifest, so that the folder can be made again when the cache is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftlib.config import Experiment, Fusion, Lora, ModelSection
from ftlib.errors import ConfigError, FtlibError, InputError
from ftlib.files.atomic import write_json
from ftlib.files.computed_once import cached
from ftlib.files.json_files import read_json
from ftlib.models import base
from ftlib.models.adapters.merge import check_mergeable, merge
from ftlib.models.adapters.start import adapter_fingerprint, begun
from ftlib.registry import registry
from ftlib.registry.version import Version, root_of
from ftlib.run.layout import LINEAGE, MANIFEST

REGISTRY = "registry:"
VERSION = 1  # raise it when the same adapter and base come to give other weights


def resolved(experiment: Experiment, whole: bool = False) -> Experiment:
    """The experiment with a folder in the place of each `registry:NAME`.

    With `whole`, teachers and reward models that are adapters are merged too: they are for a cluster, which lacks their
    bases. Raises InputError for names that are not there, and ConfigError for versions that cannot be what they are
    named for.
    """
    tree = experiment.to_dict()
    tree["model"]["name_or_path"] = _base(experiment, tree["model"]["name_or_path"])
    space = (tree["sweep"] or {}).get("space", {})
    for path, dimension in space.items():
        if path == "model.name_or_path":
            dimension["choices"] = [_base(experiment, name) for name in dimension["choices"]]
    method = tree["method"]
    if isinstance(method.get("teacher"), str):
        method["teacher"] = _beside(experiment, method["teacher"], whole, lambda version: version.path)
    for reward in method.get("rewards") or ():
        name = reward["arguments"].get("model")
        if isinstance(name, str):
            reward["arguments"]["model"] = _beside(experiment, name, whole, lambda version: version.weights)
    if isinstance(experiment.adapter, Fusion):
        fused = experiment.adapter.adapters
        tree["adapter"]["adapters"] = {name: _finished(experiment, value) for name, value in fused.items()}
    changed = tree != experiment.to_dict()
    return _begun(Experiment.parse(tree) if changed else experiment, experiment)


def _begun(experiment: Experiment, written: Experiment) -> Experiment:
    """With the shape of the adapter that `adapter.from` names; `written` knows which keys the user gave."""
    if not isinstance(written.adapter, Lora) or written.adapter.start is None:
        return experiment
    name = written.adapter.start
    folder, owner = Path(name).expanduser().absolute(), name
    if name.startswith(REGISTRY):
        version = registry.resolve(name.removeprefix(REGISTRY))
        registry.check_loadable(version)
        folder, owner = version.weights, version.id
    return begun(experiment.model_copy(update={"adapter": written.adapter}), folder, owner)


def _finished(experiment: Experiment, name: str) -> str:
    """The folder of an adapter that is fused with others. Raises ConfigError for one of another base."""
    folder = Path(name).expanduser().absolute()
    if name.startswith(REGISTRY):
        version = registry.resolve(name.removeprefix(REGISTRY))
        registry.check_loadable(version)
        folder = version.weights
    manifest = read_json(folder.parent / MANIFEST) or {}
    reason = base.unlike(manifest["base"], experiment.model) if manifest.get("base") else None
    if reason is not None:
        raise ConfigError(f"model.name_or_path: {name}, which adapter.adapters names, was trained on {reason}.")
    return str(folder)


def _base(experiment: Experiment, name: str) -> str:
    if not name.startswith(REGISTRY):
        return name
    with registry.trusting(experiment.model.trust_remote_code):  # the user's own word, for the model that is trained
        version = registry.resolve(name.removeprefix(REGISTRY))
    registry.check_loadable(version)
    _check_head(experiment, version)
    if version.kind == "model":
        return str(version.weights)
    trained_on = version.manifest["experiment"]["model"].get("quantization")
    if trained_on and experiment.model.quantization:
        raise ConfigError(
            f"model.quantization: {version.id} was trained on an {trained_on} base, and quantizing what it is merged "
            "into "
            f"would round a part of it away: use quantization: null, or go on with it as it is: adapter: {{type: lora, "
            f"from: {name}}} on {_root(version.manifest['base'])}."
        )
    return str(merged(version))


def _check_head(experiment: Experiment, version: Version) -> None:
    """A classifier has no output layer that could write: transformers would draw one at random."""
    head = (version.manifest.get("experiment") or {}).get("method", {}).get("type")
    if head in ("classify", "reward") and experiment.method.head == "causal_lm":
        raise ConfigError(
            f"model.name_or_path: {version.id} sorts texts (method.type '{head}'), so it is no base for method.type "
            f"'{experiment.method.type}', which writes."
        )


def _beside(experiment: Experiment, name: str, whole: bool, place: Callable[[Version], Path]) -> str:
    """A model beside the one that is trained: an adapter is put on its base as it is loaded."""
    if not name.startswith(REGISTRY):
        return name
    version = registry.resolve(name.removeprefix(REGISTRY))
    registry.check_loadable(version)
    if experiment.model.trust_remote_code and not version.may_run_code:  # said of another model
        raise ConfigError(
            f"model.trust_remote_code: {version.id} would be loaded with it too, and others have promoted it: promote "
            "it "
            "yourself, or leave the key out."
        )
    if version.kind == "model":
        return str(place(version))
    if whole:
        return str(merged(version))
    base = version.manifest["base"]
    if found(base)["name_or_path"] != base["name_or_path"]:  # its config names a folder of another machine
        return str(merged(version))
    return str(place(version))


def merged(version: Version) -> Path:
    """The folder of a version's adapter computed into its base; made at the first call.

    Raises InputError for an adapter that no base can absorb, and FtlibError for a base that changed, or a folder that
    was changed since it was made.
    """
    registry.check_loadable(version)
    check_mergeable(version.weights)
    manifest = version.manifest
    lineage = {"version": version.id, "adapter": adapter_fingerprint(version.weights), "base": manifest["base"]}

    def build(folder: Path) -> None:
        merge(version.weights, base_of(manifest, version.id), folder)
        write_json(folder / LINEAGE, {**lineage, "fingerprint": base.fingerprint(folder)})

    loading = manifest["experiment"]["model"] | {"name_or_path": None}
    folder = cached("merged", {"version": VERSION, **lineage, "loading": loading}, build)
    made = read_json(folder / LINEAGE) or {}
    if made.get("fingerprint") != base.fingerprint(folder):
        raise FtlibError(
            f"{folder}, which is {version.id} merged into its base, was changed: remove it, it is made again."
        )
    return folder


def base_of(manifest: Mapping[str, Any], owner: str) -> ModelSection:
    """How to load the base that `owner`, an adapter, was trained on; a merged one is made again where it is gone.

    Raises FtlibError when it is another one by now.
    """
    return base.base_of({**manifest, "base": found(manifest["base"], owner)}, owner)


def found(base: Mapping[str, Any], owner: str = "it") -> Mapping[str, Any]:
    """The same base in a folder that is there: a version merged into its base can be made again."""
    parent = base.get("parent") or {}
    if "adapter" not in parent or Path(base["name_or_path"]).is_dir():
        return base
    try:
        version = registry.resolve(parent["version"])
    except InputError as error:
        raise FtlibError(
            f"{owner} was trained on {parent['version']} merged into its base, which is gone: {error}"
        ) from error
    if version.kind != "adapter" or adapter_fingerprint(version.weights) != parent["adapter"]:
        raise FtlibError(
            f"{owner} was trained on another {parent['version']} than the registry has now: put that back."
        )
    return {**base, "name_or_path": str(merged(version))}


def _root(base: Mapping[str, Any]) -> str:
    return root_of(base)
