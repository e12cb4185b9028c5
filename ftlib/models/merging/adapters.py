"""Adapters of one base merged into one adapter, by PEFT's `add_weighted_adapter`.

It needs the shapes of the base alone, so no weights of it are read. Every adapter's scale is computed into the numbers
of the merged one, whose own scale is 1.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from ftlib.config import ModelSection
from ftlib.config.merging import ANY_RANK, PRUNING, Merging
from ftlib.errors import InputError
from ftlib.models.adapter_files import WEIGHTS, adapter_config, tensors, why_not_banked
from ftlib.models.adapters.state import PEFT_CONFIG
from ftlib.models.base import bare_model

MERGED = "merged"
SHAPED_BY = ("target_modules", "layers_to_transform", "layers_pattern", "exclude_modules")


def merge_adapters(adapters: Mapping[str, Path], base: ModelSection, how: Merging, target: Path) -> None:
    """Writes the merged adapter into the folder `target`, which is made here, with the tokenizer of the first one.

    `adapters` are folders by their names in messages, in the order of `how.weights`. Raises InputError for adapters
    that cannot be merged, or not by this method.
    """
    check_adapters(adapters, how)
    counted = [place for place, weight in enumerate(how.weights) if weight]
    folders = list(adapters.values())
    if how.method == "linear" and [how.weights[place] for place in counted] == [1.0]:
        shutil.copytree(folders[counted[0]], target)  # to the bit: its scale stays beside its numbers
        return
    model = _loaded(folders, base)
    _merge(model, how)
    target.mkdir(parents=True)
    for file in folders[0].iterdir():
        if file.is_file() and file.name not in (WEIGHTS, PEFT_CONFIG, "README.md"):
            shutil.copyfile(file, target / file.name)
    state = get_peft_model_state_dict(model, adapter_name=MERGED, save_embedding_layers=False)
    save_file({name: part.contiguous() for name, part in state.items()}, target / WEIGHTS, metadata={"format": "pt"})
    config = model.peft_config[MERGED]
    config.inference_mode = True
    config.save_pretrained(str(target))


def check_adapters(adapters: Mapping[str, Path], how: Merging) -> None:
    """Raises InputError for what is no plain LoRA, for adapters of different tasks, and for different ranks where the
    method needs one."""
    tasks, ranks = dict[str, Any](), dict[str, set[int]]()
    for name, folder in adapters.items():
        why = why_not_banked(name, folder)
        if why is not None:
            raise InputError(
                f"{name} is no plain LoRA adapter ({why}), so no method merges it with others: compute it into its "
                f"base first (ftlib merge {name} OUT), and merge whole models."
            )
        tasks[name] = adapter_config(name, folder).get("task_type")
        ranks[name] = {entry["shape"][0] for key, entry in tensors(folder / WEIGHTS)[0].items() if ".lora_A." in key}
    if len(set(tasks.values())) > 1:
        raise InputError(f"these adapters do different things: {_listed(tasks)}.")
    if not how.method.endswith(ANY_RANK[1]) and how.method != ANY_RANK[0] and len(set().union(*ranks.values())) > 1:
        listed = _listed({name: " and ".join(map(str, sorted(found))) for name, found in ranks.items()})
        other = f"{how.method}_svd" if how.method.startswith(PRUNING) else "svd"
        raise InputError(f"method {how.method} needs one rank, and there are {listed}: use linear or {other}.")


def _listed(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{value} ({name})" for name, value in told.items())


def _loaded(folders: Sequence[Path], base: ModelSection) -> Any:
    """All adapters on the shape of their base, each with its place as its name. Memory that nobody writes is not
    taken."""
    shape = bare_model(base.model_copy(update={"quantization": None})).to_empty(device="cpu")
    model = PeftModel.from_pretrained(shape, folders[0], adapter_name=_named(0))
    for place, folder in enumerate(folders[1:], 1):
        model.load_adapter(folder, adapter_name=_named(place))
    return model


def _named(place: int) -> str:
    """PEFT looks for names in those of tensors, where a mere number is a layer's."""
    return f"part{place}"


def _merge(model: Any, how: Merging) -> None:
    """Adds the adapter MERGED. PEFT takes the first adapter's config for it, so that is made to say what holds for
    all."""
    names = [_named(place) for place in range(len(how.models))]
    shapes = [{key: getattr(model.peft_config[name], key, None) for key in SHAPED_BY} for name in names]
    for name in names:
        config = model.peft_config[name]
        config.target_modules = {
            module.removeprefix("base_model.model.")
            for module, part in model.named_modules()
            if isinstance(part, LoraLayer) and name in part.lora_A
        }
        config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
        config.use_rslora = False  # of the merged one: the scales of these have been computed
    facts = how.facts()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int(str(facts.get("seed", 0))))
        model.add_weighted_adapter(
            names,
            how.weights,
            MERGED,
            combination_type="cat" if how.method == "linear" else how.method,
            density=facts.get("density"),
            svd_full_matrices=False,
        )
    if all(shape == shapes[0] for shape in shapes):  # the modules by the words that they were named by
        for key, value in shapes[0].items():
            setattr(model.peft_config[MERGED], key, value)
