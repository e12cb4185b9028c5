"""Does a teacher help? A student of a quarter of its size, trained with and without it, the same steps, several seeds.

    python benchmarks/distillation.py [--steps 400] [--seeds 1 2 3] [--kinds labels logit ...]

The quickstart's commands make the data, the base and, by full fine-tuning on the docstrings, the teacher. Then
`ftlib train experiments/distill_quickstart.yaml` once a kind and seed; `labels` is the same student by plain SFT.
The figure is the cross-entropy of the known docstrings on held-out functions: the same for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "distillation"
STUDENT = "experiments/distill_quickstart.yaml"
KINDS: dict[str, list[str]] = {  # what the command line adds to the experiment's file
    "labels": ["method={type: sft}"],
    "logit": [],
    "logit, all tokens": ["method.top_k=null"],
    "feature": ["method.kind=feature", "method.alpha=0.3"],
    "relation": ["method.kind=relation", "method.alpha=0.3"],
    "sequence": ["method.kind=sequence", "method.max_completion_length=48"],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--kinds", nargs="+", default=["labels", "logit"], choices=list(KINDS))
    parser.add_argument("overrides", nargs="*", help="for every student, as on ftlib's command line")
    options = parser.parse_args()
    make_teacher()
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in options.kinds}
    for seed in options.seeds:
        for kind in options.kinds:
            more = [f"train.seed={seed}", f"train.max_steps={options.steps}", *KINDS[kind]]
            method = (
                [] if kind == "labels" else [change for change in options.overrides if change.startswith("method.")]
            )
            train = [change for change in options.overrides if not change.startswith("method.")]
            found[kind].append(trained(STUDENT, *more, *method, *train))
            print(f"seed {seed}  {kind:18s} eval_loss {loss(found[kind][-1]):.4f}", flush=True)
    show(found, options.seeds)


def make_teacher() -> None:
    """Data, base and teacher, once; all of it under .cache/distillation."""
    if not (ROOT / ".cache/quickstart/base/config.json").exists():
        run([sys.executable, "experiments/pretrain_tiny/prepare.py"])
    for name, file in (
        ("quickstart-base", "experiments/pretrain_tiny/pretrain.yaml"),
        ("docstrings-teacher", "experiments/distill_teacher.yaml"),
    ):
        if not (FOLDER / "home" / "registry" / name).exists():
            print(f"{name}: eval_loss {loss(trained(file)):.4f}", flush=True)
            ftlib("promote", str(FOLDER / "runs" / name), "--as", name)


def trained(file: str, *overrides: str) -> dict[str, Any]:
    """The manifest of what `ftlib train` leaves."""
    output = ftlib("train", file, *overrides, f"storage={FOLDER / 'runs'}", "scale.resources_per_worker={CPU: 1}")
    folder = next(line.split()[1] for line in output.splitlines() if line.startswith("run /"))
    manifest: dict[str, Any] = json.loads((Path(folder) / "trials/000/manifest.json").read_text())
    return manifest


def loss(manifest: dict[str, Any]) -> float:
    return float(manifest["metrics"]["eval_loss"])


def show(found: dict[str, list[dict[str, Any]]], seeds: list[int]) -> None:
    """The table of docs/log.md."""
    print("| student | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | against labels alone |")
    print("|---" * (len(seeds) + 3) + "|")
    plain = [loss(manifest) for manifest in found.get("labels", [])]
    for kind, manifests in found.items():
        losses = [loss(manifest) for manifest in manifests]
        gains = [one - other for one, other in zip(losses, plain, strict=False)]
        row = [f"{value:.4f}" for value in (*losses, statistics.mean(losses))]
        print(f"| {kind} | {' | '.join(row)} | {' '.join(f'{gain:+.4f}' for gain in gains)} |")
    for kind, manifests in found.items():
        print(kind, {"total_parameters": manifests[0]["total_parameters"], **manifests[0].get("teacher", {})})


def ftlib(*arguments: str) -> str:
    return run([sys.executable, "-m", "ftlib.cli", *arguments])


def run(command: list[str]) -> str:
    environment = {**os.environ, "FTLIB_HOME": str(FOLDER / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
