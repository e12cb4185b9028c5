"""Real rows (Alpaca, GSM8K, SST-2) with faults whose places are known."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .test_personal_data import FORMATS

Fields = dict[str, Any]

FOLDER = next(
    (there for up in Path(__file__).parents if (there := up / "shared" / "data").is_dir()), Path("shared/data")
)
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there is no {FOLDER}")


@dataclass
class Planted:
    """Rows of prompt and completion, and the places of those with each fault; `test` are rows of an evaluation."""

    rows: list[Fields]
    test: list[Fields]
    places: dict[str, list[int]] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)  # of personal data


def real_rows(count: int) -> list[Fields]:
    """As many of each data set as there are, in turn."""
    alpaca = json.loads((FOLDER / "alpaca_en_demo.json").read_text())
    gsm = map(json.loads, (FOLDER / "gsm8k_train.jsonl").read_text().splitlines())
    sst = [line.rsplit("\t", 1) for line in (FOLDER / "sst2_train.tsv").read_text().splitlines()]
    sets = [
        [_row("\n".join(filter(None, (row["instruction"], row["input"]))), row["output"]) for row in alpaca],
        [_row(row["question"], row["answer"]) for row in gsm],
        [_row(text, label) for text, label in sst],
    ]
    found: dict[str, Fields] = {}
    for turn in range(max(map(len, sets))):
        for rows in (rows for rows in sets if turn < len(rows)):
            found.setdefault(rows[turn]["prompt"].casefold().strip(), rows[turn])  # what stands twice, once
    return list(found.values())[:count]


def _row(prompt: str, completion: str) -> Fields:
    return {"prompt": prompt, "completion": completion}


def planted(count: int, seed: int = 0) -> Planted:
    """`count` rows, of which a twentieth each are exact duplicates, near ones, contradictions, rows of an evaluation,
    and rows with personal data."""
    rng, many = random.Random(seed), count // 20
    real = real_rows(count - 4 * many)
    test, rows = real[:many], real[many:]
    long = [row for row in rows if len(row["prompt"].split()) >= 10]
    words = [word for row in rows[:500] for word in row["prompt"].split()]
    personal = [_with_personal(row, rng) for row in rng.sample(rows, many)]
    plants = {
        "exact": [{key: _respaced(text, rng) for key, text in row.items()} for row in rng.sample(rows, many)],
        "near": [_changed(row, words, rng) for row in rng.sample(long, many)],
        "contradiction": [row | {"completion": f"No: {rng.choice(words)}."} for row in rng.sample(rows, many)],
        "test": test,
        "personal": [row for row, _ in personal],
    }
    made = Planted(rows, test)
    for name, planted_rows in plants.items():
        made.places[name] = list(range(len(made.rows), len(made.rows) + len(planted_rows)))
        made.rows = made.rows + planted_rows
    made.kinds = dict(zip(made.places["personal"], (kind for _, kind in personal), strict=True))
    return made


def _respaced(text: str, rng: random.Random) -> str:
    return f" {text.upper() if rng.random() < 0.5 else text.replace(' ', '  ')}\n"


def _changed(row: Fields, words: list[str], rng: random.Random) -> Fields:
    """One word in ten is another one."""
    prompt = row["prompt"].split()
    for place in rng.sample(range(len(prompt)), round(len(prompt) / 10)):
        prompt[place] = rng.choice([word for word in rng.sample(words, 50) if word != prompt[place]])
    return row | {"prompt": " ".join(prompt)}


def _with_personal(row: Fields, rng: random.Random) -> tuple[Fields, str]:
    kind = rng.choice(list(FORMATS))
    prompt = row["prompt"].split(" ")
    prompt.insert(rng.randrange(len(prompt) + 1), rng.choice(FORMATS[kind]))
    return row | {"prompt": " ".join(prompt)}, kind
