"""How many trials live in a pack, and how many of them one pass computes at first: told by memory and by the batches,
before anything is computed. `pace` corrects the second while the trials train."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from ftlib.data import Prepared
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.pace import alike
from ftlib.run.context import Setting

BUSY = {"cpu": 2048, "cuda": 16384}  # places of a pass that keep the machine busy: more are hardly faster a place
COMPARED = 8  # trials at once, at least, though fewer keep the machine busy: a scheduler compares those that train
FREE = {"slots": 0.25, "pass": 0.5}  # of the free memory, that each may take
BYTES = 16  # of a trained parameter: its weight, its gradient and AdamW's two moments, in float32


@dataclass(frozen=True)
class Width:
    """`slots` trials train at once, `width` of them in one pass, never more than `widest`. `places` are those of one
    trial's batch."""

    width: int
    widest: int
    slots: int
    places: int
    how: str  # "asked", "estimated", or "measured" while an earlier driver's trials trained

    @property
    def sentence(self) -> str:
        if self.how == "asked" or self.slots == 1:
            return f"pack width {self.slots}"
        if self.width == 1:
            batch = f"one trial's batch of about {self.places:,} tokens keeps the machine busy"
            return f"pack width 1 ({self.how}): {self.slots} trials take turns, since {batch}"
        tokens = f"about {self.width * self.places:,} tokens a pass"
        return f"pack width {self.width} ({self.how}): {self.slots} trials train at once, {tokens}"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "sentence": self.sentence}

    @classmethod
    def known(cls, told: Mapping[str, Any] | None, of: dict[str, Any], most: int) -> Width | None:
        """What another host of the run found, where all that it depends on (`of`) is the same; at most `most` slots."""
        if not told or told.get("of") != of:
            return None
        slots = min(told["slots"], most)
        width, widest = min(told["width"], slots), min(told["widest"], slots)
        return cls(width, widest, slots, told["places"], "measured" if "rates" in told else "estimated")


def depends_on(setting: Setting, data: str, rank: int, device: str, threads: int) -> dict[str, Any]:
    """What a width holds for: the machine, and the shapes of the run's steps. `data` is the rows' hash."""
    processor = torch.cuda.get_device_name() if device == "cuda" else _processor()
    batch = setting.experiment().train.per_device_train_batch_size
    shapes = {"data": data, "rank": rank, "batch": batch}
    return {"processor": processor, "threads": threads, "torch": torch.__version__, **shapes}


def _processor() -> str:
    """The model of the CPU, as the kernel names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def estimated(base: FrozenBase, places: int, most: int) -> Width:
    """Of at most `most` trials: as many slots as keep the machine busy, or as a scheduler compares, or as memory holds,
    such that trials come in waves of like size. One pass computes as many as keep the machine busy."""
    free = _free_bytes(base.device)
    busy = max(1, math.ceil(BUSY[base.device.type] / places))
    held = max(1, int(FREE["slots"] * free / (BYTES * base.bank.size)))
    slots = min(most, held, max(COMPARED, busy))
    slots = math.ceil(most / math.ceil(most / slots))
    widest = max(1, min(slots, int(FREE["pass"] * free / (places * _place_bytes(base)))))
    return Width(min(alike(slots, busy), widest), widest, slots, places, "estimated")


def _free_bytes(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available)


def _place_bytes(base: FrozenBase) -> int:
    """Bytes of what a place keeps until the backward pass, about: of a layer 34 a hidden unit at 16 bits (Korthikanti
    et al. 2022, arXiv:2205.05198, the attention scores left out), and the logits with their gradient."""
    config = base.model.config.get_text_config()
    return 68 * int(config.hidden_size) * int(config.num_hidden_layers) + 8 * int(config.vocab_size)


def places_of(setting: Setting, data: Prepared) -> int:
    """Tokens of one trial's batch, the mean over the data."""
    report = data.report
    rows = setting.experiment().train.per_device_train_batch_size
    return max(1, round(rows * report.train_tokens / max(1, report.train_rows)))
