"""Parts of gpu_day.py: how long a device takes, and what bounds it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gpu
import pack_step
import torch
from gpu_place import RANK, Place, data_of, setting_of, tflops

Row = dict[str, Any]
WIDTHS = [1, 2, 4, 8, 16, 32]


def step(place: Place, shape: str) -> Iterator[Row]:
    """A step of packs of 1 to 32 trials; the bound is the frozen base's forward and input gradient, measured, and the
    roofline what their products take at the speed of one large product."""
    setting, data = place.synthetic(shape)
    base = place.base(setting, data)
    speed = tflops(place)
    flops = 4 * sum(layer.base.in_features * layer.base.out_features for layer in base.bank.layers)
    for width in WIDTHS[:2] if place.tiny else WIDTHS:
        found = pack_step.measured(base, setting, width, place.seconds)
        yield {
            "shape": shape,
            "width": width,
            "together": found["together"],
            "step_ms": found["step"] * 1e3,
            "bound_ms": found["bound"] * 1e3,
            "roofline_ms": flops * found["tokens"] / speed / 1e9,
            "tokens_a_second": found["tokens"] / found["step"],
            "peak_gib": found["peak"] / 2**30,
        }


def trainer(place: Place, case: str) -> Iterator[Row]:
    """TRL's step on the 1B shape, with as many tokens as a trial of step-1b has."""
    command = [sys.executable, str(Path(gpu.__file__)), "--steps", "12", "--batch", "2", "--length", "512"]
    command += ["--keep-activations", "--out", str(place.folder), "--cases", case]
    subprocess.run([*command, *["--tiny"] * place.tiny], check=True)
    (found,) = json.loads((place.folder / "gpu.json").read_text())["cases"]
    yield {key: found[key] for key in ("case", "seconds_a_step", "tokens_a_second", "peak_gib")}


def dpo(place: Place) -> Iterator[Row]:
    """DPO on pairs, what they begin with computed once and computed for each."""
    from ftlib.pack import token_layout

    tree, options = place.written("dpo")
    tree["train"] |= {"max_steps": 10**6, "logging_steps": 10**6, "activation_checkpointing": False}
    setting = setting_of(tree, options.folder)
    base = place.base(setting, data_of(setting), 1)
    together = token_layout.together
    for shared in (True, False):
        token_layout.together = together if shared else token_layout.apart
        for width in (1, 2 if place.tiny else 8):
            found = pack_step.measured(base, setting, width, place.seconds)
            row = {"shared": shared, "width": width, "step_ms": found["step"] * 1e3, "places": found["tokens"]}
            yield {**row, "peak_gib": found["peak"] / 2**30}


def qlora(place: Place) -> Iterator[Row]:
    """Packs on a base of four bits."""
    setting, data = place.synthetic("1b", weights=True)
    setting.resolved["model"]["quantization"] = "nf4"
    base = place.base(setting, data)
    for width in (1, 2) if place.tiny else (1, 4, 16):
        found = pack_step.measured(base, setting, width, place.seconds)
        row = {"width": width, "step_ms": found["step"] * 1e3, "tokens_a_second": found["tokens"] / found["step"]}
        yield {**row, "bound_ms": found["bound"] * 1e3, "peak_gib": found["peak"] / 2**30}


def serving(place: Place) -> Iterator[Row]:
    """The endpoint's batch: rows by adapters, greedy, 32 tokens to a prompt of 24."""
    from serve.engine.batch import Batch
    from serve.engine.sampling import Sampling
    from serve.engine.sequence import Sequence
    from serve.engine.slots import Adapter, Slots

    setting, _ = place.synthetic("1b")
    from ftlib.models.base import load_model

    with place.device:
        model = (
            load_model(setting.experiment().model.model_copy(update={"init": "random"})).eval().requires_grad_(False)
        )
    linears = {name: part for name, part in model.named_modules() if name.endswith("_proj")}

    def adapter(number: int) -> Any:
        draw = torch.Generator().manual_seed(number)
        state = {}
        for name, part in linears.items():
            state[f"{name}.lora_A.weight"] = torch.randn(RANK, part.in_features, generator=draw) * 0.01
            state[f"{name}.lora_B.weight"] = torch.randn(part.out_features, RANK, generator=draw) * 0.01
        return Adapter(f"a{number}", RANK, frozenset(linears), state)

    adapters = [adapter(number) for number in range(2 if place.tiny else 16)]
    slots = Slots(model, len(adapters), next(model.parameters()).dtype)
    batch, new = Batch(model, slots), 4 if place.tiny else 32

    def answer(rows: int, kinds: int) -> None:
        prompts = [[2 + (row + place_) % 500 for place_ in range(24)] for row in range(rows)]
        sampling = Sampling(temperature=0)
        group = [
            Sequence(prompt, new, frozenset(), sampling, lambda ids: "", adapter=adapters[row % kinds])
            for row, prompt in enumerate(prompts)
        ]
        for sequence in group:
            slots.hold(sequence.adapter)
        batch.admit(group)
        while len(batch):
            batch.step()

    for rows in (1, 4) if place.tiny else (1, 8, 64):
        for kinds in sorted({1, min(rows, len(adapters))}):
            taken = place.timed(partial(answer, rows, kinds))
            yield {"rows": rows, "adapters": kinds, "tokens_a_second": rows * new / taken}


def low_rank(place: Place) -> Iterator[Row]:
    """A layer's x A: one padded product a slot, against torch's grouped product of ragged rows."""
    grouped = getattr(torch.nn.functional, "grouped_mm", None)
    slots, most, inputs = (2, 32, 64) if place.tiny else (16, 1024, 2048)
    lengths = torch.linspace(0.8 * most, most, slots).int()  # as ragged as trials of one pass are
    options: Any = {"device": place.device, "dtype": torch.bfloat16}
    x, a = torch.randn(slots, most, inputs, **options), torch.randn(slots, inputs, RANK, **options)
    yield {"product": "bmm, padded", "ms": place.timed(lambda: torch.bmm(x, a)) * 1e3}
    if grouped is not None and not place.tiny:
        flat = torch.cat([rows[:length] for rows, length in zip(x, lengths.tolist(), strict=True)])
        ends = lengths.cumsum(0).int().to(place.device)
        yield {"product": "grouped_mm, ragged", "ms": place.timed(lambda: grouped(flat, a, offs=ends)) * 1e3}
