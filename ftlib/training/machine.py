"""What training takes of the machine that it runs on, measured in the process that trains."""

from __future__ import annotations

import time

import psutil
import torch

GIB = 2**30


class Machine:
    """Numbers of this process for the rows of one trial. Trials of a pack share a process, and so all but the speed.

    A reading takes a tenth of a millisecond; on a GPU it does not wait for what the GPU has to do.
    """

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.process.cpu_percent()  # it counts from the call before
        self.has_gpu = torch.cuda.is_available()
        self.tells_use = self.has_gpu and _tells_use()
        self.begin(0)

    def begin(self, tokens: int) -> None:
        """The speed is measured from here."""
        self.tokens, self.since = tokens, time.perf_counter()

    def row(self, tokens: int, trained: bool) -> dict[str, float]:
        """What a row says of the machine: `machine/tokens_per_second` since the row before, `cpu_percent` (100 a
        core), `memory_gib`, and on a GPU `gpu_memory_gib` (the most so far), `gpu_percent`. Nothing on
        a row of an evaluation, whose seconds are not the training's."""
        seconds, more = time.perf_counter() - self.since, tokens - self.tokens
        self.begin(tokens)
        if not trained:
            return {}
        found = {
            "tokens_per_second": more / max(seconds, 1e-9),
            "cpu_percent": self.process.cpu_percent(),
            "memory_gib": self.process.memory_info().rss / GIB,
            **(self._gpu() if self.has_gpu else {}),
        }
        return {f"machine/{name}": round(value, 3) for name, value in found.items()}

    def _gpu(self) -> dict[str, float]:
        use = {"gpu_percent": float(torch.cuda.utilization())} if self.tells_use else {}
        return {"gpu_memory_gib": torch.cuda.max_memory_reserved() / GIB, **use}


def _tells_use() -> bool:
    """Whether the driver says how busy the GPU is; torch asks it through nvidia-ml-py, where that is installed."""
    try:
        torch.cuda.utilization()
    except Exception:
        return False
    return True
