"""Numbers that were written down once, and that no rearrangement of the code may change: `recorded(name, values)`.

On the kind of machine that they were written down on they are the same to the bit; on another one, whose processor adds
in another order, the first numbers are close: a large learning rate doubles what rounding differs in, step by step.
`FTLIB_RECORD=1` writes them anew, which is right only where numbers are meant to change.
"""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "recordings"
CLOSE = 1e-3
FIRST = 4  # numbers of a list, before training has made more of a rounding


def machine() -> dict[str, str]:
    import torch

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    return {"cpu": ", ".join(sorted(names)), "capability": torch.backends.cpu.get_cpu_capability(), **packages}


def recorded(name: str, values: dict[str, list[Any]]) -> None:
    """Holds lists of numbers or texts against those under `name`."""
    file = FOLDER / f"{name}.json"
    if os.environ.get("FTLIB_RECORD"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"machine": machine(), "values": values}, indent=1, ensure_ascii=False) + "\n")
    told = json.loads(file.read_text(encoding="utf-8"))
    if told["machine"] == machine():
        assert values == told["values"]
        return
    assert values.keys() == told["values"].keys()
    for key, found in values.items():
        there = told["values"][key]
        assert len(found) == len(there)
        if all(isinstance(value, int | float) for value in found):
            found, there = found[:FIRST], pytest.approx(there[:FIRST], rel=CLOSE, abs=CLOSE)
        assert found == there, key
