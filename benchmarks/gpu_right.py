"""Parts of gpu_day.py: is what a device computes right, and does the host wait for it?"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gpu
import torch
from gpu_place import Place, packed, setting_of, tflops, train, trial_of

Row = dict[str, Any]
CLOSE = {"float32": 1e-4, "bfloat16": 1e-2}  # what certificates promise of losses


def machine(place: Place) -> Iterator[Row]:
    """Versions, and what bounds everything: matrix products and memory."""
    packages = {name: _version(name) for name in ("torch", "transformers", "peft", "trl", "bitsandbytes", "triton")}
    yield {"device": _name(place), **packages}
    yield {"tflops": tflops(place)}
    x = torch.empty(2**20 if place.tiny else 2**30, device=place.device)
    yield {"gigabytes_a_second": 2 * x.nbytes / place.timed(lambda: x.clone()) / 1e9}


def certificates(place: Place, dtype: str) -> Iterator[Row]:
    """Isolation: a trial among others and alone. Truth: a trial of a pack and the same by TRL."""
    points: list[dict[str, Any]] = [
        {"adapter.r": 8, "train.learning_rate": 3e-3, "train.seed": 3},
        {"adapter.r": 2, "train.per_device_train_batch_size": 3, "train.weight_decay": 0.1},
        {"adapter.r": 4, "train.gradient_accumulation_steps": 3, "train.max_grad_norm": 0.05},
    ]
    tree, options = Place(True, place.folder).written("lora")
    tree["model"]["dtype"] = dtype
    tree["scale"]["resources_per_worker"] = {"CPU": 1} if place.tiny else {"CPU": 1, "GPU": 1}
    tree["train"] |= {"max_steps": 8 if place.tiny else 24, "bf16": False, "learning_rate": 5e-3}
    if not place.tiny:
        tree["train"]["tf32"] = False
    names = [f"{number:03d}" for number in range(len(points))]
    among, alone, theirs = (setting_of({**tree, "name": name}, options.folder) for name in ("among", "alone", "trl"))
    train(place, among, dict(zip(names, points, strict=True)))
    for name, point in zip(names, points, strict=True):
        train(place, alone, {name: point})
    yield {"certificate": "isolation", **_apart(among, alone, names, dtype)}
    from ftlib.training.trial import run_trial

    for name, point in zip(names, points, strict=True):
        trial_of(theirs, name).path.mkdir(exist_ok=True)
        run_trial(theirs, name, point, lambda row: None)
    yield {"certificate": "truth", **_apart(among, theirs, names, dtype)}


def _apart(ours: Any, theirs: Any, names: list[str], dtype: str) -> Row:
    """The largest difference of two runs' losses, relative."""
    pairs = [
        (mine["loss"], other["loss"])
        for name in names
        for mine, other in zip(_losses(ours, name), _losses(theirs, name), strict=True)
    ]
    off = max(abs(mine - other) / abs(other) for mine, other in pairs)
    return {"dtype": dtype, "losses": len(pairs), "off": off, "holds": off <= CLOSE[dtype]}


def _losses(setting: Any, name: str) -> list[Row]:
    return [row for row in trial_of(setting, name).metrics() if "loss" in row]


def waits(place: Place) -> Iterator[Row]:
    """The lines that wait for the device within a step (torch says so), which should be none."""
    pack = packed(place, "135m", 4)
    for _ in range(3):
        pack.tick()
    if place.tiny:
        return
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pack.tick()
    torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(one.filename).name}:{one.lineno}" for one in found if "synchroniz" in str(one.message)]
    yield {"waits": len(places), "where": sorted(set(places))}


def update(place: Place) -> Iterator[Row]:
    """The update of all slots at once, compiled and not, against torch's AdamW of each."""
    from ftlib.pack.update import AtOnce, OneByOne, _adamw

    pack = packed(place, "1b", 8)
    bank, members = pack.base.bank, list(pack.members.values())
    losses = {member.slot: torch.ones((), device=place.device) for member in members}
    ways: list[tuple[str, Any]] = [("one by one", OneByOne(bank)), ("at once", AtOnce(bank))]
    if not place.tiny:
        ways.append(("at once, compiled", AtOnce(bank)))
    ways[1][1].adamw = _adamw
    first, weights = bank.weights.clone(), None
    for name, way in ways:
        bank.weights.copy_(first)
        for member in members:
            way.take(member.slot, member.tenant)
            if name == "one by one":  # torch's fused step has its count beside the weights
                for state in member.tenant.optimizer.state.values():
                    state["step"] = state["step"].to(place.device)
        started = time.perf_counter()
        for seed in range(3):
            bank.grads.copy_(torch.randn(bank.grads.shape, generator=torch.Generator().manual_seed(seed)))
            way.step(losses)
        weights = bank.weights.clone() if weights is None else weights
        off = float((bank.weights - weights).abs().max())
        begin = time.perf_counter() - started
        taken = place.timed(lambda way=way: way.step(losses))
        bound = 8 * bank.weights.nbytes / 1e9
        yield {"update": name, "slots": bank.slots, "ms": taken * 1e3, "gigabytes": bound, "off": off, "first_s": begin}


def attention(place: Place) -> Iterator[Row]:
    """Attention without padding against attention of spans of like length: the same losses, and which is faster."""
    from ftlib.pack import span_attention

    said: list[list[float]] = []
    for ragged in (False, True):
        span_attention.RAGGED = ragged
        pack = packed(place, "135m", 8, tokens=None)
        for _ in range(3):
            pack.tick()
        for member in pack.members.values():
            member.settle()
        said.append([float(member.loss) for member in pack.members.values()])
        off = max(abs(one - other) / abs(one) for one, other in zip(said[0], said[-1], strict=True))
        yield {"ragged": ragged, "step_ms": place.timed(pack.tick) * 1e3, "off": off}


def _name(place: Place) -> str:
    if place.tiny:
        return f"{platform.machine()} (--tiny: not a measurement)"
    return f"{torch.cuda.get_device_name()} of {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"


def _version(name: str) -> str:
    return version(name) if gpu.is_installed(name) else "none"
