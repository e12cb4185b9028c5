"""What a frozen layer's products cost: MKL, as PyTorch calls it, and oneDNN on weights laid out once
(`ftlib/models/onednn.py`).

python benchmarks/onednn.py [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from ftlib.models.onednn import FrozenLinear

SHAPES = ((64, 64), (64, 1024), (128, 352), (256, 688), (512, 1376))
ROWS = (1, 16, 128, 512, 2048)


def microseconds(layer: Callable[[torch.Tensor], object], x: torch.Tensor, times: int = 40) -> float:
    for _ in range(10):
        layer(x)
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        layer(x)
        found.append(time.perf_counter() - begin)
    return statistics.median(found) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    print(f"{options.threads} threads; microseconds of x W^T: MKL, oneDNN, and how many times faster")
    for inputs, outputs in SHAPES:
        layer = nn.Linear(inputs, outputs, bias=False)
        frozen = FrozenLinear(layer, gradients=False)
        for rows in ROWS:
            x = torch.randn(rows, inputs)
            plain, laid = microseconds(layer, x), microseconds(frozen, x)
            print(f"{inputs:5} -> {outputs:5}, {rows:5} rows {plain:9.0f} {laid:9.0f} {plain / laid:6.2f}", flush=True)


if __name__ == "__main__":
    main()
