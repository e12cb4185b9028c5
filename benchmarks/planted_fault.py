"""A planted fault, and preference pairs that take it away: a model that answers in capitals.

    python benchmarks/planted_fault.py FOLDER

One pipeline on SmolLM2-135M-Instruct and Alpaca's short answers (../shared/data): SFT on answers in capitals makes the
model with the fault; `pairs` sets the rows' own answers against what that model says; DPO trains on the pairs; both
models answer questions that neither has seen. Printed: the share of answers with a small letter, and the p of
McNemar's exact test. The second call, with nothing changed, does nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
BASE = ROOT / ".cache" / "models" / "smollm2-135m-instruct"
ALPACA = ROOT.parent / "shared" / "data" / "alpaca_en_demo.json"
LONGEST = 90  # characters of an answer
PARTS = {"shouted": 100, "plain": 64, "asked": 50}  # rows: of SFT, of the pairs, of the judgement
SMALL_LETTER = {"type": "regex", "pattern": "[a-z]"}


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder)
    for name, content in files(folder).items():
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ftlib.cli", "pipeline", "pipeline.yaml"], cwd=folder, check=True)
    print(f"{time.perf_counter() - started:.1f} s")
    print((folder / "pipelines" / "planted-fault" / "steps" / "judge.json").read_text())


def write_rows(folder: Path) -> None:
    rows = [row for row in json.loads(ALPACA.read_text()) if len(row["output"]) <= LONGEST]
    for name, count in PARTS.items():
        part, rows = rows[:count], rows[count:]
        lines = [json.dumps(chat(row, shout=name == "shouted")) for row in part]
        file = folder / f"{name}.jsonl"
        if not file.exists():
            file.write_text("".join(line + "\n" for line in lines))


def chat(row: dict[str, str], shout: bool) -> dict[str, Any]:
    question = f"{row['instruction']}\n{row['input']}".strip()
    answer = row["output"].upper() if shout else row["output"]
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def files(folder: Path) -> dict[str, dict[str, Any]]:
    same = {
        "adapter": {"type": "lora", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "scale": {"resources_per_worker": {"CPU": 1}},
        "track": {"wandb": None, "tensorboard": False},
    }
    train = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "warmup_steps": 0.1,
        "eval_strategy": "end",
    }
    return {
        "shouter.yaml": {
            "name": "shouter",
            "model": {"name_or_path": str(BASE)},
            "data": {"train": "shouted.jsonl", "eval_split": 0.1, "max_length": 192},
            "method": {"type": "sft"},
            "train": {**train, "learning_rate": 1e-3, "max_steps": 40},
            **same,
        },
        "pairs.yaml": {
            "name": "pairs-of-a-fault",
            "from": [{"jsonl": "plain.jsonl"}],
            "steps": [
                {"pairs": {"rejected": "registry:shouter", "max_tokens": 64, "temperatures": [0.2]}},
                {"split": {"eval": 0.1}},
            ],
        },
        "dpo.yaml": {
            "name": "quiet",
            "model": {"name_or_path": "registry:shouter"},
            "data": {"train": "data:pairs-of-a-fault", "max_length": 192},
            "method": {"type": "dpo", "beta": 0.1},
            "train": {**train, "learning_rate": 1e-3, "max_steps": 40},
            **same,
        },
        "pipeline.yaml": {
            "name": "planted-fault",
            "steps": {
                "shouter": {"train": "shouter.yaml", "as": "shouter"},
                "pairs": {"build": "pairs.yaml"},
                "dpo": {"train": "dpo.yaml"},
                "judge": {
                    "evaluate": ["dpo", "shouter"],
                    "task": {"data": "asked.jsonl", "metrics": [SMALL_LETTER], "max_new_tokens": 24},
                },
            },
        },
    }


if __name__ == "__main__":
    main()
