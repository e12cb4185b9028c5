"""How many trials to compute together: measured on the base, the data and the machine that will train them."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ftlib.pack.engine import Pack, out_of_memory
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.token_layout import Block
from ftlib.run.context import Rungs, Setting
from ftlib.run.directory import Run

SECONDS = 0.1  # of measuring, each width
STRIDE = 4  # 1, 4, 16, 64: throughput rises and levels off, and each try costs steps of all its trials
LEVEL = 1.1  # a stride that raises throughput by less than this is the last: it has levelled off
AS_GOOD = 0.97  # a smaller width that has this share of the best throughput is taken: fewer trials wait for each other


@dataclass(frozen=True)
class Width:
    """`speedup` is the throughput over one trial's; `share` that over what the frozen base alone would allow."""

    width: int
    speedup: float
    share: float
    steps: dict[int, float]  # width -> seconds of a step of all its trials

    @property
    def sentence(self) -> str:
        if self.width == 1:
            return f"pack width 1: packing would not pay here, {self.share:.0%} of the limit"
        return f"pack width {self.width}: {self.speedup:.1f}x one trial, {self.share:.0%} of the limit"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def known(cls, measured: Mapping[str, Any] | None, of: dict[str, Any]) -> Width | None:
        """The width that an earlier driver of the run measured, where all that it depends on (`of`) is the same."""
        if not measured or measured.get("of") != of:
            return None
        steps = {int(width): seconds for width, seconds in measured["steps"].items()}
        return cls(measured["width"], measured["speedup"], measured["share"], steps)


def depends_on(setting: Setting, data: str, most: int, rank: int, device: str, threads: int) -> dict[str, Any]:
    """What a measured width holds for: the machine, and the shapes of the run's steps. `data` is the rows' hash."""
    processor = torch.cuda.get_device_name() if device == "cuda" else _processor()
    batch = setting.experiment().train.per_device_train_batch_size
    shapes = {"data": data, "most": most, "rank": rank, "batch": batch}
    return {"processor": processor, "threads": threads, "torch": torch.__version__, **shapes}


def _processor() -> str:
    """The model of the CPU, as the kernel names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure(base: FrozenBase, setting: Setting, most: int, rank: int) -> Width:
    """Widens in strides while that pays and memory allows, up to `most`. Leaves the bank empty, with as many slots."""
    steps: dict[int, float] = {}
    blocks: dict[int, list[Block]] = {}
    width = 1
    while True:
        try:
            steps[width], blocks[width] = _step(base, setting, width, rank)
        except RuntimeError as error:
            if not out_of_memory(error) or width == 1:
                raise
            break
        rates = [tried / seconds for tried, seconds in steps.items()]
        if width >= most or (width > 1 and rates[-1] < LEVEL * max(rates[:-1])):
            break
        width = min(STRIDE * width, most)
    best = min(tried for tried, seconds in steps.items() if tried / seconds >= AS_GOOD * max(rates))
    bound = timed(lambda: frozen(base, blocks[best]), base.device)
    base.bank.resize(best)
    return Width(best, best / steps[best] * steps[1], min(1.0, bound / steps[best]), steps)


# What would interrupt the steps that are timed.
STOPS = ("eval_steps", "evals_per_epoch", "save_steps", "early_stopping_patience")


def _step(base: FrozenBase, setting: Setting, width: int, rank: int) -> tuple[float, list[Block]]:
    """Seconds of a step of `width` trials, and their places: one batch again and again, since batches differ in
    size."""
    base.bank.resize(width)
    params: dict[str, Any] = {"adapter.r": rank, "train.max_steps": 10**6, "train.logging_steps": 10**6}
    params |= {"train.eval_strategy": "end"} | {f"train.{key}": None for key in STOPS}
    sweep = setting.experiment().sweep
    own_order = sweep is not None and "train.seed" in sweep.space
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(folder, "width", "", {})
        pack = Pack(base, replace(setting, run=str(run.path), rungs=Rungs()))
        for number in range(width):
            seed = {"train.seed": number} if own_order else {}
            pack.join(f"{number:03d}", {**params, **seed}, lambda row: None)
        blocks = [member.block() for member in pack.members.values()]

        def step() -> None:
            pack.tick()
            for member in pack.members.values():
                member.step = 0  # the same batch again

        return timed(step, base.device), blocks


def frozen(base: FrozenBase, blocks: list[Block]) -> None:
    """Forward of the base alone over each trial's places, and the gradient of its embeddings: what LoRA cannot do
    without."""
    hook = base.model.get_input_embeddings().register_forward_hook(
        lambda module, args, out: out.detach().requires_grad_()
    )
    try:
        with base.computing([replace(block) for block in blocks], None) as outputs:  # copies: no batch is shared
            torch.autograd.backward([scored.logits.float().logsumexp(-1).sum() for scored in outputs])
    finally:
        hook.remove()


def timed(action: Callable[[], Any], device: torch.device, seconds: float = SECONDS) -> float:
    """The best of some calls, in seconds, after one to warm up: the others were disturbed."""
    taken: list[float] = []
    for number in range(1000):
        _synchronize(device)
        started = time.perf_counter()
        action()
        _synchronize(device)
        if number:
            taken.append(time.perf_counter() - started)
        if len(taken) >= 3 and sum(taken) > seconds:
            break
    return min(taken)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
