"""What shared beginnings save on SmolLM2: places of a batch, the time of a step, and that of an evaluation.

    python experiments/chain/prepare.py
    python benchmarks/shared_prefixes.py [--threads 1] [--rounds 3] [--only sft|dpo] [--pairs FILE]

Three layouts of the same rows, in turn: each sequence rounded up to 16 places (as before the trie), apart without that,
and shared. SFT: 6 trials with 8 SST-2 chats each, and their evaluation on 32 rows; DPO: 4 trials with 2 pairs each of
at most 512 tokens (dpo_en_demo.json). Engine alone: no Ray, no TRL, and nothing is written but the run's directory.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from ftlib.config import Experiment
from ftlib.data import prepare
from ftlib.models.base import load_tokenizer
from ftlib.pack import prefix_trie, row_passes, token_layout
from ftlib.pack.engine import Pack
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.prefix_trie import Span, Standing
from ftlib.pack.token_layout import rounded
from ftlib.run.context import Setting
from ftlib.run.directory import Run

SMOLLM = ".cache/models/smollm2-135m-instruct"
CHATS = {"train": ".cache/chain/chats.jsonl", "eval_split": 0.05, "max_length": 128}


class Rounded(Standing):
    """Each sequence in whole blocks."""

    @property
    def places(self) -> int:
        return sum(rounded(span.length) for span in self.spans)


def rounded_apart(sequences: Sequence[np.ndarray]) -> Rounded:
    starts = np.cumsum([0, *(rounded(len(ids)) for ids in sequences)])
    paths = tuple(start + np.arange(len(ids)) for start, ids in zip(starts, sequences, strict=False))
    return Rounded(tuple(Span(len(path), path) for path in paths), paths)


LAYOUTS: dict[str, Callable[..., Standing]] = {
    "rounded": rounded_apart,
    "apart": prefix_trie.apart,
    "shared": prefix_trie.together,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["sft", "dpo"])
    parser.add_argument("--pairs", type=Path, default=Path("../shared/data/dpo_en_demo.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "dpo":
            chats(Path(folder), options.rounds)
        if options.only != "sft":
            preferences(Path(folder), options.pairs, options.rounds)


def chats(folder: Path, rounds: int) -> None:
    pack = packed(folder, 6, 8, CHATS, {"type": "sft"})
    report("SFT, 8 SST-2 chats", pack, 8)
    timed("a step of 6 trials", pack, pack.tick, rounds)
    members = list(pack.members.values())
    slots, objectives = [member.slot for member in members], [member.objective for member in members]
    timed("an evaluation, 32 rows", pack, lambda: pack.evaluations(slots, objectives), rounds)


def preferences(folder: Path, source: Path, rounds: int) -> None:
    data = {"train": str(source), "eval_split": 0.1, "max_length": 512}
    pack = packed(folder, 4, 2, data, {"type": "dpo"})
    report("DPO, 4 pairs", pack, 4)
    timed("a step of 4 trials, 2 pairs", pack, pack.tick, rounds)


def packed(folder: Path, trials: int, rows: int, data: dict[str, Any], method: dict[str, Any]) -> Pack:
    """A pack of trials of different rates, which see the same rows."""
    tree = {
        "name": "prefixes",
        "model": {"name_or_path": SMOLLM},
        "data": data,
        "method": method,
        "adapter": {"type": "lora", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "train": {"max_steps": 10**6, "per_device_train_batch_size": rows, "logging_steps": 10**6},
    }
    tree["train"] |= {"eval_strategy": "end", "per_device_eval_batch_size": 8}  # type: ignore[operator]
    experiment = Experiment.parse(tree)
    made = prepare(experiment.data, experiment.method.rows, load_tokenizer(experiment.model))
    run = Run.create(folder / "runs", method["type"], "", {})
    setting = Setting(run=str(run.path), data=str(made.path), resolved=json.loads(json.dumps(experiment.to_dict())))
    pack = Pack(FrozenBase(experiment, made, trials, 8), setting)
    for number in range(trials):
        pack.join(f"{number:03d}", {"train.learning_rate": 1e-5 * (number + 1)}, lambda row: None)
    return pack


def report(name: str, pack: Pack, rows: int) -> None:
    """How many places 20 batches have in each layout."""
    objective = next(iter(pack.members.values())).objective
    batches = [objective.tokens("train", range(start, start + rows)) for start in range(0, 20 * rows, rows)]
    places: dict[str, float] = {}
    for layout in LAYOUTS:
        use(layout)
        places[layout] = mean(len(token_layout.Block.of(batch).ids) for batch in batches)
    tokens = mean(sum(len(sequence.ids) for sequence in batch) for batch in batches)
    print(f"{name}: {tokens:.0f} tokens a batch; " + ", ".join(f"{key} {value:.0f}" for key, value in places.items()))
    print(f"  rounded / shared {places['rounded'] / places['shared']:.2f}, tokens / shared "
          f"{tokens / places['shared']:.2f}", flush=True)  # fmt: skip


def use(layout: str) -> None:
    setattr(token_layout, "together", LAYOUTS[layout])  # noqa: B010
    row_passes.PLACES = 2**12 if layout == "shared" else 0


def timed(name: str, pack: Pack, action: Callable[[], Any], rounds: int) -> None:
    """The best of each layout's times, one round after the other, after one to warm up."""
    taken: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    for number in range(rounds + 1):
        for layout, times in taken.items():
            use(layout)
            pack._blocks.clear()
            pack._plans.clear()
            for member in pack.members.values():
                member.step, member.rows_of_step = 0, []  # the same batch again
            began = time.perf_counter()
            action()
            if number:
                times.append(time.perf_counter() - began)
    best = {layout: min(times) for layout, times in taken.items()}
    ratios = ", ".join(
        f"{layout} {seconds:.2f} s ({best['rounded'] / seconds:.2f}x)" for layout, seconds in best.items()
    )
    print(f"  {name}: {ratios}", flush=True)


if __name__ == "__main__":
    main()
