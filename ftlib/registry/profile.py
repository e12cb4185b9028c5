"""What a version's training data looks like, kept beside its weights: what `ftlib monitor` compares traffic with.

    <version>/profile.json   of prompts and answers: lengths in tokens, words, what held-out rows give in the measures

It is made at promotion from the prepared data of the run, as the model read it: templates and all. It holds the words
of the data and how often each stands there, and no text.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ftlib.data import Prepared, load_prepared
from ftlib.data.tokenize import IGNORED
from ftlib.errors import DataError
from ftlib.files.atomic import write_json
from ftlib.files.home import home
from ftlib.files.json_files import read_json
from ftlib.registry.drift import Texts, expectations

FILE = "profile.json"
ROWS = 5000  # of the data that are looked at, drawn by a seed
MOST_WORDS = 50_000  # that are kept, the most frequent
HELD_OUT = 5  # every fifth row is compared with the rest, to know what nothing but chance gives

Turn = tuple[list[int], list[int]]  # the tokens before an answer, and the answer's


@dataclass(frozen=True)
class Part:
    """Of the prompts, or of the answers: what training had, and what chance alone gives by number of texts."""

    texts: Texts
    expected: dict[int, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        most = self.texts.words.most_common(MOST_WORDS)
        return {"lengths": self.texts.lengths, "words": dict(most), "expected": self.expected}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Part:
        lengths = Counter({int(length): count for length, count in value["lengths"].items()})
        table = {int(size): row for size, row in value["expected"].items()}
        return cls(Texts(lengths, Counter(value["words"])), table)


def prepared_of(manifest: dict[str, Any]) -> Prepared:
    """The data that a trial was trained on, from the cache. Raises DataError when it is no longer there."""
    return load_prepared(home() / "cache" / "data" / str(manifest.get("data_hash")))


def write_profile(folder: Path, data: Prepared, tokenizer: Any) -> None:
    """Writes `profile.json` into a version's folder. Raises DataError for data that is too little."""
    chosen = random.Random(0).sample(range(len(data.train)), min(ROWS, len(data.train)))
    found = list(turns(data.train.select(sorted(chosen)), data.report.rows, tokenizer))
    parts = {
        "prompt": _part([prompt for prompt, _ in found], tokenizer),
        "answer": _part([answer for _, answer in found], tokenizer),
    }
    if not any(parts.values()):
        raise DataError(f"{data.path}: it holds fewer than {HELD_OUT} texts, too few for a profile.")
    whole = {"rows": len(chosen), "of": len(data.train)}
    write_json(folder / FILE, whole | {name: part.to_json() if part else None for name, part in parts.items()})


def read_profile(folder: Path) -> dict[str, Part | None] | None:
    """`prompt` and `answer` of a version's profile, each None where the data had none; None without a profile."""
    value = read_json(folder / FILE)
    if value is None:
        return None
    return {name: Part.from_json(value[name]) if value[name] else None for name in ("prompt", "answer")}


def turns(rows: Any, kind: str, tokenizer: Any) -> Iterator[Turn]:
    """Every answer of prepared rows with all that stands before it. Raw text has no prompt, a class is no answer."""
    for row in rows:
        if kind in ("answers", "text"):
            yield from _labelled_spans(row["input_ids"], row["labels"])
        elif kind == "labelled":
            yield row["input_ids"], []
        elif kind == "prompts":
            yield _prompt(row["prompt"], tokenizer), tokenizer(row["answer"], add_special_tokens=False)["input_ids"]
        else:
            yield row["prompt_ids"], row["chosen_ids" if kind == "pairs" else "completion_ids"]


def _labelled_spans(ids: list[int], labels: list[int]) -> Iterator[Turn]:
    start = 0
    for trained, group in groupby(labels, lambda label: label != IGNORED):
        end = start + len(list(group))
        if trained:
            yield ids[:start], ids[start:end]
        start = end


def _prompt(prompt: Any, tokenizer: Any) -> list[int]:
    """The tokens of a prompt that is a text, or turns for the chat template."""
    if not isinstance(prompt, str):
        prompt = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return ids


def _part(tokens: Sequence[list[int]], tokenizer: Any) -> Part | None:
    texts = [Texts.of(len(ids), tokenizer.decode(ids, skip_special_tokens=True)) for ids in tokens if ids]
    if len(texts) < HELD_OUT:
        return None
    held_out = texts[::HELD_OUT]
    kept = Texts.together([text for number, text in enumerate(texts) if number % HELD_OUT])
    kept = Texts(kept.lengths, Counter(dict(kept.words.most_common(MOST_WORDS))))
    return Part(kept, expectations(kept, held_out))
