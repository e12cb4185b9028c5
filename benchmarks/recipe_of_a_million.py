"""A recipe over a million rows: clean, dedupe, split. How long it takes, and how much memory.

    python benchmarks/recipe_of_a_million.py [--rows 1000000] [--workers 2] [--near 0.85] [--file FILE]

Rows are those of Alpaca, GSM8K and SST-2, each with words of its own put in by a seed; one in twenty is the copy of
another, one in twenty was decoded wrongly. Printed: seconds of the clock, seconds of all processes' processors, and the
most memory that all processes had together (PSS, which counts shared pages once).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "ivory", "jade", "karst", "lotus")


def texts(folder: Path) -> list[dict[str, str]]:
    alpaca = json.loads((folder / "alpaca_en_demo.json").read_text())
    rows = [{"instruction": row["instruction"], "output": row["output"]} for row in alpaca]
    for line in (folder / "gsm8k_train.jsonl").open():
        row = json.loads(line)
        rows.append({"instruction": row["question"], "output": row["answer"]})
    for line in (folder / "sst2_train.tsv").open().readlines()[1:]:
        text, _, label = line.rstrip("\n").rpartition("\t")
        rows.append({"instruction": text, "output": label})
    return rows


def write(file: Path, count: int, folder: Path) -> None:
    """The rows, drawn by their number alone: the first million of two million are the million."""
    known = texts(folder)
    with file.open("w", encoding="utf-8") as out:
        for number in range(count):
            drawn = random.Random(number - 7 if number % 20 == 19 else number)
            row = dict(known[drawn.randrange(len(known))])
            words = row["instruction"].split(" ")
            for _ in range(1 + len(words) // 10):
                words.insert(drawn.randrange(len(words) + 1), f"{drawn.choice(WORDS)}{drawn.randrange(10**6)}")
            row["instruction"] = " ".join(words) + ("  caf\u00c3\u00a9 " if number % 20 == 3 else "")
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextmanager
def memory() -> Iterator[list[float]]:
    """While the block lasts, the most memory of this process and all below it, in GiB."""
    import psutil

    most, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(1.0):
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            most[0] = max(most[0], total / 2**30)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def processor_seconds() -> float:
    """Of this process and of all that live below it."""
    import psutil

    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--near", type=float)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--file", type=Path, help="Rows that were written before, or the file to write them to.")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="million-"))
    try:
        print(json.dumps(measure(asked, folder)))
    finally:
        shutil.rmtree(folder)


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from ftlib.config.recipe import Recipe
    from ftlib.curate.on_ray import OnRay
    from ftlib.curate.result import write_rows
    from ftlib.curate.runner import build
    from ftlib.curate.sources import all_parts
    from ftlib.curate.workers import Here

    os.environ["FTLIB_HOME"] = str(folder / "home")
    file = asked.file or folder / "rows.jsonl"
    if not file.exists():
        write(file, asked.rows, asked.data)
    dedupe = {"near": asked.near} if asked.near else {}
    recipe = Recipe.parse(
        {
            "name": "million",
            "storage": str(folder / "store"),
            "from": [{"jsonl": str(file)}],
            "steps": ["clean", {"dedupe": dedupe}, {"split": {"test": 0.01, "eval": 0.01}}],
        }
    )
    begun, spent = time.monotonic(), processor_seconds()
    with memory() as most:
        built = build(recipe, all_parts(recipe), Here() if asked.workers == 1 else OnRay(asked.workers))
        files = write_rows(built, folder)
        seconds, processor = time.monotonic() - begun, processor_seconds() - spent
    return {
        "rows": asked.rows,
        "workers": asked.workers,
        "near": asked.near,
        "bytes": file.stat().st_size,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "most_memory_GiB": round(most[0], 2),
        "files": {name: told["rows"] for name, told in files.items()},
        "hash": files["train.jsonl"]["sha256"][:16],
        "dropped": built.counts["dedupe"]["dropped"],
    }


if __name__ == "__main__":
    main()
