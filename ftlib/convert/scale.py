"""How the source was spread over GPUs, as `scale`: workers, FSDP and DeepSpeed. It changes no number but the batch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlib.convert import beside
from ftlib.convert.conversion import Conversion
from ftlib.errors import nearest

MAX_BYTES = 100_000  # of a DeepSpeed file
ONE_GPU = "one GPU holds the whole model: --gpus says on how many you train"
# FSDP's own keys, without the `fsdp_` that some write before them: plain ones, and those that only save memory or time.
FSDP_PLAIN = {"reshard_after_forward": "scale.reshard_after_forward", "offload_params": "scale.cpu_offload"}
FSDP_CLASSES = "transformer_layer_cls_to_wrap"
FSDP_HARMLESS = (
    "version auto_wrap_policy backward_prefetch backward_prefetch_policy cpu_ram_efficient_loading "
    "forward_prefetch limit_all_gathers state_dict_type final_state_dict_type sync_module_states "
    "use_orig_params cpu_offload_pin_memory sharding_strategy min_num_params mixed_precision_policy dcp_path"
)


def workers(conversion: Conversion) -> None:
    """One worker a GPU, where each computes rows of its own. Without `--gpus` it is one: none of the tools writes into
    its file how many there are."""
    strategy = conversion.at("scale.strategy")
    if strategy is None and conversion.gpus > 1:
        conversion.put("scale.strategy", "ddp", "--gpus")
    if conversion.gpus > 1:
        conversion.put("scale.num_workers", conversion.gpus // conversion.gpus_a_row, "--gpus")
    if conversion.at("scale.resources_per_worker") is None:
        conversion.put("scale.resources_per_worker", {"CPU": 4, "GPU": 1}, f"{conversion.tool} trains on GPUs")


def one_row(conversion: Conversion, key: str, value: Any) -> None:
    """A key by which several GPUs compute the same rows, by tensors or by sequences. What they learn is the same, but
    a step has fewer rows than GPUs would give it: `same_rows` takes care of that."""
    if value == 1:
        return conversion.harmless(key, "it is off")
    if not isinstance(value, int) or value < 1:
        return conversion.refuse(key, "it is a number of GPUs")
    if conversion.gpus % value:
        return conversion.refuse(key, f"{value} GPUs compute one row: --gpus says how many there are, a multiple of it")
    conversion.one_row[key] = value
    return None


def same_rows(conversion: Conversion) -> None:
    """Makes a step have as many rows as at the source, where several GPUs computed the same ones there: each computes
    rows of its own and fewer of them, or there are fewer workers."""
    for key, times in conversion.one_row.items():
        paths = ("train.gradient_accumulation_steps", "train.per_device_train_batch_size")
        path = next((path for path in paths if not (conversion.at(path) or 1) % times), None)
        if path is not None:
            note = f"divided by {times}, because here each GPU computes rows of its own; each holds whole rows"
            conversion.map(key, {path: conversion.at(path) // times}, note, look=True)
        elif conversion.gpus // (conversion.gpus_a_row * times) > 1:
            conversion.gpus_a_row *= times
            note = f"one worker takes the place of {times} GPUs that compute one row; it holds the whole row"
            conversion.map(key, {}, note, look=True)
        else:
            conversion.refuse(key, f"{times} GPUs compute one row, and here one GPU would compute all rows of a step: "
                                   "raise gradient_accumulation_steps at the source")  # fmt: skip


def quantized(conversion: Conversion) -> bool:
    """Whether the base has fewer bits."""
    return conversion.at("model.quantization") is not None


def fsdp(conversion: Conversion, key: str, value: Any) -> None:
    """`fsdp_config`, `fsdp` or `dist_config`. Each key inside gets its fate."""
    if conversion.gpus < 2:
        return conversion.harmless(key, ONE_GPU, look=True)
    conversion.map(key, {"scale.strategy": "fsdp"})
    for inner, said in value.items() if isinstance(value, Mapping) else ():
        _fsdp_key(conversion, f"{key}.{inner}", str(inner).removeprefix("fsdp_"), said)
    return None


def _fsdp_key(conversion: Conversion, key: str, name: str, value: Any) -> None:
    if value is None:
        return conversion.harmless(key, "it is empty")
    if name in FSDP_PLAIN:
        return conversion.map(key, {FSDP_PLAIN[name]: value})
    if name == FSDP_CLASSES:
        return conversion.map(key, {f"scale.{FSDP_CLASSES}": value})
    if name == "activation_checkpointing":
        return conversion.map(key, {"train.activation_checkpointing": value})
    if name in FSDP_HARMLESS.split():
        return conversion.harmless(key, "how FSDP loads, saves and cuts the model changes nothing that is learned")
    known = [*FSDP_PLAIN, FSDP_CLASSES, *FSDP_HARMLESS.split()]
    return conversion.refuse(key, f"FSDP has no such key here.{nearest(name, known)}")


def settle(conversion: Conversion) -> None:
    """Fits the strategy to the base: FSDP leaves quantized weights whole, so ZeRO-3 spreads them."""
    if conversion.at("scale.strategy") != "fsdp" or not quantized(conversion):
        return None
    offload, experts = bool(conversion.at("scale.cpu_offload")), conversion.at("model.quantize_moe_experts")
    for name in ("reshard_after_forward", "cpu_offload", FSDP_CLASSES):
        conversion.tree["scale"].pop(name, None)
    if experts:
        because = "FSDP leaves quantized weights whole, and ZeRO-3 quantizes no experts: each GPU holds the whole base"
        return conversion.put("scale.strategy", "ddp", because)
    because = "FSDP leaves quantized weights whole; ZeRO-3 spreads them, and learns the same"
    conversion.put("scale.strategy", "deepspeed", because)
    conversion.put("scale.stage", 3, because)
    if offload:
        conversion.put("scale.offload", "cpu", because)
    return None


def deepspeed(conversion: Conversion, key: str, value: Any) -> None:
    """The path of a DeepSpeed file, read where it is there; else its name says the stage, as the tools name theirs."""
    place = None if isinstance(value, Mapping) else beside.find(conversion.folder, str(value))
    section = value if place is None else beside.read_json(place, MAX_BYTES)
    if isinstance(section, Mapping):
        return _zero(conversion, key, *_stage(section), "")
    name = Path(str(value)).name
    found = re.search(r"z(?:ero)?_?([0-3])", name)
    if found is None:
        return conversion.refuse(key, f"there is no file {value!r} here, and its name says no stage: set scale.stage")
    offload = "cpu" if "offload" in name else "none"
    return _zero(conversion, key, int(found[1]), offload, "by its name: it is not here")


def _stage(section: Mapping[str, Any]) -> tuple[Any, str]:
    """Stage and offload of a DeepSpeed file. Its sizes of buffers change nothing that is learned."""
    zero = section.get("zero_optimization")
    zero = zero if isinstance(zero, Mapping) else {}
    parts = [zero.get("offload_optimizer"), zero.get("offload_param")]
    devices = [part.get("device") for part in parts if isinstance(part, Mapping)]
    return zero.get("stage", 0), next((device for device in devices if device in ("cpu", "nvme")), "none")


def _zero(conversion: Conversion, key: str, stage: Any, offload: str, note: str) -> None:
    if stage == 0:
        return conversion.harmless(key, "ZeRO-0 is plain data parallelism")
    if stage not in (1, 2, 3) or offload == "nvme":
        return conversion.refuse(key, f"stage {stage} with offload '{offload}': set scale.stage, offload and nvme_path")
    settings: dict[str, Any] = {"scale.strategy": "deepspeed", "scale.stage": stage}
    return conversion.map(key, settings | ({"scale.offload": "cpu"} if offload == "cpu" else {}), note, look=bool(note))
