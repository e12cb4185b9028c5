"""Chats and pairs out of SST-2 (sentences of film reviews, 1 for praise), which the repository does not hold.

    .cache/chain/chats.jsonl   messages: a review, and the one word of its judgement
    .cache/chain/pairs.jsonl   prompt, chosen, rejected: other reviews, the right word and the wrong one

`python experiments/chain/prepare.py [sst2_train.tsv]`, from the repository's root. A line of the file is sentence TAB
label.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TARGET = Path(".cache/chain")
SOURCE = Path("../shared/data/sst2_train.tsv")
CHATS, PAIRS = 640, 240
WORDS = ("negative", "positive")
ASK = "Is this review positive or negative? Answer with one word.\n\n{}"


def main() -> None:
    """Writes both files and says so."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    if not source.is_file():
        sys.exit(f"there is no {source}: name a file of SST-2, python {sys.argv[0]} sst2_train.tsv")
    with source.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened, delimiter="\t", quoting=csv.QUOTE_NONE))[: CHATS + PAIRS]
    write("chats", (chat(*row) for row in rows[:CHATS]))
    write("pairs", (pair(*row) for row in rows[CHATS:]))


def chat(review: str, label: str) -> dict[str, Any]:
    """A row for SFT."""
    asked, answered = ASK.format(review.strip()), WORDS[int(label)]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}


def pair(review: str, label: str) -> dict[str, Any]:
    """A row for DPO."""
    return {"prompt": ASK.format(review.strip()), "chosen": WORDS[int(label)], "rejected": WORDS[1 - int(label)]}


def write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """One file, and a line about it."""
    TARGET.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (TARGET / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} {name} in {TARGET / name}.jsonl")


if __name__ == "__main__":
    main()
