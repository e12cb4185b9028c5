"""Near duplicates of many rows: processor seconds and memory. `python benchmarks/near_duplicates.py --rows 1000000`

The rows are sentences of Alpaca and GSM8K put together anew, two to six each. One in twenty is another row of its block
with one word in ten changed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import time
from pathlib import Path

import numpy as np

from ftlib.curate.near_duplicates import Signatures, groups, signatures

BLOCK = 20_000
DATA = next(there for up in Path(__file__).resolve().parents if (there := up / "shared" / "data").is_dir())


def sentences() -> list[str]:
    gsm = map(json.loads, (DATA / "gsm8k_train.jsonl").read_text().splitlines())
    texts = [f"{row['question']} {row['answer']}" for row in gsm]
    texts += [f"{row['instruction']} {row['output']}" for row in json.loads((DATA / "alpaca_en_demo.json").read_text())]
    return [part for text in texts for part in re.split(r"(?<=[.!?])\s+", text) if part]


def block(number: int, parts: list[str]) -> list[str]:
    rng, made = random.Random(number), list[str]()
    for row in range(BLOCK):
        if row > 100 and rng.random() < 0.05:
            words = made[rng.randrange(row)].split()
            for place in rng.sample(range(len(words)), max(1, round(len(words) / 10))):
                words[place] = f"changed{rng.randrange(10_000)}"
            made.append(" ".join(words))
        else:
            made.append(" ".join(rng.choices(parts, k=rng.choice([2, 4, 6]))))
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    rows, parts, found, reading = parser.parse_args().rows, sentences(), list[Signatures](), 0.0
    for number in range(rows // BLOCK):
        texts = block(number, parts)
        began = time.process_time()
        found.append(signatures(texts))
        reading += time.process_time() - began
    began = time.process_time()
    whole = Signatures.joined(found)
    found.clear()
    first = groups(whole)
    told = {
        "rows": len(whole),
        "words a row": round(float(np.diff(whole.ends).mean()), 1),
        "signatures: processor s": round(reading, 1),
        "groups: processor s": round(time.process_time() - began, 1),
        "near duplicates": round(float((first != np.arange(len(whole))).mean()), 4),
        "most memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
