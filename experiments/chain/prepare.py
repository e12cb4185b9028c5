"""Chats and pairs out of SST-2 (sentences of film reviews, 1 for praise), which the repository does not hold.

    .cache/chain/chats.jsonl   messages: a review, and the one word of its judgement
    .cache/chain/pairs.jsonl   prompt, chosen, rejected: other reviews, the right word and the wrong one
    .cache/chain/test.jsonl    prompt, completion: reviews of SST-2's development set, for the task of sentiment.yaml

`python experiments/chain/prepare.py [FOLDER]`, from the repository's root. FOLDER has sst2_train.tsv and sst2_dev.tsv,
whose lines are sentence TAB label.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TARGET = Path(".cache/chain")
SOURCE = Path("../shared/data")
CHATS, PAIRS, TESTS = 640, 240, 300
WORDS = ("negative", "positive")
ASK = "Is this review positive or negative? Answer with one word.\n\n{}"


def main() -> None:
    """Writes the files and says so."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    rows = read(folder / "sst2_train.tsv", CHATS + PAIRS)
    write("chats", (chat(*row) for row in rows[:CHATS]))
    write("pairs", (pair(*row) for row in rows[CHATS:]))
    write("test", (question(*row) for row in read(folder / "sst2_dev.tsv", TESTS)))


def read(file: Path, count: int) -> list[list[str]]:
    """The first rows of a file: [review, label]."""
    if not file.is_file():
        sys.exit(f"there is no {file}: name the folder of SST-2, python {sys.argv[0]} FOLDER")
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened, delimiter="\t", quoting=csv.QUOTE_NONE))[:count]


def chat(review: str, label: str) -> dict[str, Any]:
    """A row for SFT."""
    asked, answered = ASK.format(review.strip()), WORDS[int(label)]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}


def pair(review: str, label: str) -> dict[str, Any]:
    """A row for DPO."""
    return {"prompt": ASK.format(review.strip()), "chosen": WORDS[int(label)], "rejected": WORDS[1 - int(label)]}


def question(review: str, label: str) -> dict[str, Any]:
    """A row of a task."""
    return {"prompt": ASK.format(review.strip()), "completion": WORDS[int(label)]}


def write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """One file, and a line about it."""
    TARGET.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (TARGET / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} {name} in {TARGET / name}.jsonl")


if __name__ == "__main__":
    main()
