"""`adapter: {from: ...}`: a trained LoRA adapter that training goes on with, instead of one drawn at random.

Its shape is its own (`SHAPE`): an experiment takes it over, and what it says besides must agree. A reference model
(DPO, KTO, GRPO, RLOO) is then the base with this adapter as it was: TRL copies the adapter that training begins with.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from ftlib.config import Experiment, Lora
from ftlib.errors import ConfigError
from ftlib.files.json_files import read_json
from ftlib.models.adapter_files import check_tensors
from ftlib.models.adapters.state import PEFT_CONFIG, PEFT_WEIGHTS
from ftlib.models.base import parent_of, unlike
from ftlib.run.layout import MANIFEST

SHAPE = (
    *("r", "lora_alpha", "target_modules", "layers_to_transform"),
    *("rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
    *("modules_to_save", "ensure_weight_tying", "target_parameters"),
)
CLASSIFIES = {"SEQ_CLS": "sorts texts", "CAUSAL_LM": "writes text"}


def begun(experiment: Experiment, folder: Path, owner: str) -> Experiment:
    """The experiment with the shape of the adapter in `folder`, called `owner` in messages.

    Raises ConfigError for a folder that holds no LoRA adapter, and, by its key, for what contradicts the adapter:
    another shape, another base, another task, a space over its shape.
    """
    adapter = experiment.adapter
    assert isinstance(adapter, Lora)
    config = read_json(folder / PEFT_CONFIG) if (folder / PEFT_WEIGHTS).is_file() else None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ConfigError(f"adapter.from: {owner} is no LoRA adapter, and only LoRA is trained further as it is.")
    heads = ("modules_to_save",) if config.get("task_type") == "SEQ_CLS" else ()  # PEFT names a classifier's there
    shape = {key: config[key] for key in SHAPE if config.get(key) is not None and key not in heads}
    for key, value in shape.items():
        if key in adapter.model_fields_set and _differs(getattr(adapter, key), value):
            said = ", ".join(sorted({name.rpartition(".")[2] for name in value})) if isinstance(value, list) else value
            raise ConfigError(f"adapter.{key}: {owner}, which adapter.from names, has {said}: leave the key out.")
    for path in experiment.sweep.paths if experiment.sweep else ():
        if path.removeprefix("adapter.") in SHAPE:
            raise ConfigError(f"sweep.space.{path}: it is that of {owner}, which adapter.from names: take it out.")
    _check_task(experiment, config, owner)
    _check_base(experiment, folder, owner)
    tree = experiment.to_dict()
    tree["adapter"] |= {**shape, "from": str(folder)}
    return Experiment.parse(tree)


def _differs(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, list) and isinstance(theirs, list):
        return set(ours) != set(theirs)
    return bool(ours != theirs)


def _check_task(experiment: Experiment, config: dict[str, Any], owner: str) -> None:
    wanted = "CAUSAL_LM" if experiment.method.head == "causal_lm" else "SEQ_CLS"
    found = config.get("task_type") or wanted
    if found != wanted:
        raise ConfigError(
            f"adapter.from: {owner} {CLASSIFIES.get(found, found)}, and method.type '{experiment.method.type}' needs "
            "an "
            f"adapter that {CLASSIFIES[wanted]}."
        )


def _check_base(experiment: Experiment, folder: Path, owner: str) -> None:
    """A folder without a manifest (made by other than ftlib) does not say what its base was; its shapes must fit."""
    manifest = read_json(folder.parent / MANIFEST)
    if not isinstance(manifest, dict) or "base" not in manifest:
        return
    parent = parent_of(Path(experiment.model.name_or_path)) or {}
    if parent.get("version") is not None and parent["version"] == owner.removeprefix("registry:"):
        raise ConfigError(
            f"model.name_or_path: it is {owner} merged into its base, and adapter.from would add {owner} again: name "
            f"{manifest['base']['name_or_path']}, or leave out adapter.from."
        )
    reason = unlike(manifest["base"], experiment.model)
    if reason is not None:
        raise ConfigError(f"model.name_or_path: {owner}, which adapter.from names, was trained on {reason}.")
    trained = manifest["experiment"]["model"].get("quantization")
    if trained != experiment.model.quantization:
        raise ConfigError(
            f"model.quantization: {owner}, which adapter.from names, was trained on a base with quantization "
            f"{trained or 'null'}: write that."
        )


def load_start(model: PeftModel, folder: Path) -> None:
    """Gives a fresh adapter of the same shape the weights in `folder`. Raises ConfigError where they do not fit."""
    found, fresh = read_start(folder), get_peft_model_state_dict(model)
    for name in sorted({*found, *fresh}):
        here, there = (part[name].shape if name in part else None for part in (fresh, found))
        if here != there:
            raise ConfigError(
                f"adapter.from: {folder} does not fit this base and adapter: {name} is "
                f"{'missing' if there is None else tuple(there)} there, and "
                f"{'missing' if here is None else tuple(here)} here."
            )
    set_peft_model_state_dict(model, found)


def read_start(folder: Path) -> dict[str, Any]:
    """The tensors of the adapter, by PEFT's names. Raises ConfigError where it is gone."""
    if not (folder / PEFT_WEIGHTS).is_file():
        raise ConfigError(f"adapter.from: there is no adapter in {folder} any more: put it back there.")
    check_tensors(folder)
    tensors: dict[str, Any] = load_file(folder / PEFT_WEIGHTS)
    return tensors


def adapter_fingerprint(folder: Path) -> str:
    """sha256 over an adapter's config and weights."""
    digest = hashlib.sha256()
    for file in (folder / PEFT_CONFIG, *sorted(folder.glob("*.safetensors"))):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
