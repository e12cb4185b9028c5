"""Whole models merged tensor by tensor, as they lie in their safetensors files.

What is written has the files of the first model, header for header, with other numbers: the same names, dtypes, shards
and tied embeddings. One tensor of each model is in memory at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ftlib.config.merging import Merging
from ftlib.errors import InputError
from ftlib.files.json_files import read_json
from ftlib.models.adapter_files import tensors
from ftlib.models.merging.formulas import FORMULAS

CONFIG = "config.json"
COPIED = (".json", ".jinja", ".txt", ".model", ".py")  # of the first model, besides its weights
HALF = (torch.float16, torch.bfloat16)


def merge_weights(models: Mapping[str, Path], how: Merging, target: Path) -> None:
    """Writes the merged model into the folder `target`, which is made here.

    `models` are folders by their names in messages: first those of `how.models`, in their order, and then that of
    `how.base`, where there is one. Raises InputError for models that do not fit together, before anything is written,
    and for numbers that are none.
    """
    if how.method == "linear" and not how.adds_up_to_one:
        total = sum(how.weights)
        raise InputError(
            f"the weights add up to {total:g}, which scales the whole model: give weights that add up to 1."
        )
    check_alike(models)
    with ExitStack() as stack:
        opened = [_Tensors(folder, stack) for folder in models.values()]
        merge = partial(_merged, opened, _check_tensors(opened, list(models)), how)
        target.mkdir(parents=True)
        for file in sorted(next(iter(models.values())).iterdir()):
            if file.suffix == ".safetensors":
                _write(file, target / file.name, merge)
            elif file.is_file() and file.suffix in COPIED:
                shutil.copyfile(file, target / file.name)


def _merged(opened: Sequence[_Tensors], fractions: set[str], how: Merging, name: str) -> Tensor:
    """One tensor, in the dtype of the first model. Halves are added up in float32, and all else in float64."""
    own, others = opened[0].read(name), opened[1:]
    if name not in fractions:  # they are equal
        return own
    wide = torch.float32 if own.dtype in HALF else torch.float64
    parts = [own.to(wide), *(one.read(name).to(wide) for one in others)]
    count = len(how.models)
    found = FORMULAS[how.method](parts[:count], how.weights, parts[count] if len(parts) > count else None)
    if not torch.isfinite(found).all():
        raise InputError(f"{name} of the merged model would hold numbers that are none (NaN or infinite).")
    return found.to(own.dtype)


def _write(origin: Path, target: Path, tensor_of: Callable[[str], Tensor]) -> None:
    """A safetensors file with the header of `origin`, and other tensors under it."""
    header, start = tensors(origin)
    with origin.open("rb") as source, target.open("wb") as file:
        file.write(source.read(start))
        for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
            file.write(tensor_of(name).contiguous().reshape(-1).view(torch.uint8).numpy().data)


# --- what fits together -----------------------------------------------------------------------------------------


class _Tensors:
    """The tensors of a model's files, read one at a time."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.headers: dict[str, dict[str, Any]] = {}
        self._files: dict[str, Any] = {}
        for file in sorted(folder.glob("*.safetensors")):
            opened = stack.enter_context(safe_open(file, framework="pt"))
            header, _ = tensors(file)
            self.headers |= header
            self._files |= dict.fromkeys(header, opened)

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor


def _check_tensors(models: Sequence[_Tensors], names: Sequence[str]) -> set[str]:
    """The names of the tensors that are added up. Raises InputError where two models have not the same tensors, by name
    and shape; what is no fraction must be equal."""
    first = models[0]
    for other, called in zip(models[1:], names[1:], strict=True):
        for name in sorted(first.headers.keys() ^ other.headers.keys()):
            has, lacks = (names[0], called) if name in first.headers else (called, names[0])
            raise InputError(f"{has} has a tensor {name}, and {lacks} has none: they are no models of one kind.")
        for name, entry in first.headers.items():
            here, there = entry["shape"], other.headers[name]["shape"]
            if here != there:
                raise InputError(f"{name} is {here} in {names[0]}, and {there} in {called}.")
            fractions = _is_fraction(entry) and _is_fraction(other.headers[name])
            if not fractions and not torch.equal(first.read(name), other.read(name)):
                raise InputError(f"{name} differs in {names[0]} and {called}, and is no fraction that can be added up.")
    return {name for name, entry in first.headers.items() if _is_fraction(entry)}


def _is_fraction(entry: Mapping[str, Any]) -> bool:
    return str(entry["dtype"]) in ("F64", "F32", "F16", "BF16")


def check_alike(models: Mapping[str, Path]) -> None:
    """Raises InputError for models of another kind than the first one, for quantized ones, and for those whose
    tokenizers differ."""
    names, folders = list(models), list(models.values())
    configs = [read_json(folder / CONFIG, dict) or {} for folder in folders]
    words = [_vocabulary(folder) for folder in folders]
    for name, folder, config, known in zip(names, folders, configs, words, strict=True):
        if not any(folder.glob("*.safetensors")):
            raise InputError(f"{name} has no safetensors in {folder}, and no other weights are read.")
        if config.get("quantization_config"):
            raise InputError(f"{name} is quantized, and its numbers cannot be added up: name the model it was made of.")
        for key in ("architectures", "tie_word_embeddings"):
            if config.get(key) != configs[0].get(key):
                raise InputError(f"{key} is {configs[0].get(key)} in {names[0]}, and {config.get(key)} in {name}.")
        if known and words[0] and known != words[0]:
            word = min(set(known.items()) ^ set(words[0].items()))[0]
            raise InputError(f"the tokenizers of {names[0]} and {name} differ, in {word!r} for example.")


def _vocabulary(folder: Path) -> dict[str, int]:
    """The tokens of a folder's tokenizer.json and their numbers; {} where it has none."""
    told = read_json(folder / "tokenizer.json", dict) or {}
    listed = (told.get("model") or {}).get("vocab") or {}
    words = listed if isinstance(listed, dict) else {str(entry[0]): number for number, entry in enumerate(listed)}
    return {**words, **{entry["content"]: entry["id"] for entry in told.get("added_tokens") or ()}}
