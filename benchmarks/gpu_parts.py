"""One part of gpu_day.py, in a process of its own: writes its rows to a file as it finds them."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gpu
import torch
from gpu_bounds import dpo, low_rank, qlora, serving, step, trainer
from gpu_place import Place
from gpu_right import attention, certificates, machine, update, waits

from ftlib.run import context

PARTS: dict[str, Callable[[Place], Iterator[dict[str, Any]]]] = {
    "machine": machine,
    "certificates-float32": partial(certificates, dtype="float32"),
    "certificates-bfloat16": partial(certificates, dtype="bfloat16"),
    "waits": waits,
    "update": update,
    **{f"step-{shape}": partial(step, shape=shape) for shape in ("135m", "1b", "8b")},
    **{f"trainer-{case}": partial(trainer, case=case) for case in ("lora", "qlora", "dpo")},
    "attention": attention,
    "dpo": dpo,
    "qlora": qlora,
    "serving": serving,
    "low-rank": low_rank,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    context.PACKAGES = tuple(name for name in context.PACKAGES if gpu.is_installed(name))  # a trial needs no ray
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device: try --tiny")
    with tempfile.TemporaryDirectory() as folder:
        for row in PARTS[options.part](Place(options.tiny, Path(folder))):
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if any(isinstance(value, float) and not math.isfinite(value) for value in row.values()):
                sys.exit(f"a row is no number: {row}")


if __name__ == "__main__":
    main()
