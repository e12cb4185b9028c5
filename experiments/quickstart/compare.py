"""How many held-out tickets the base gets right when it is told what to do, and shown some, and how many the winner.

    python experiments/quickstart/compare.py [NAME]

NAME is the winner's in the registry (default tickets). An answer is right when it is JSON with the same three values.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ftlib.cli import guarded, quiet_libraries

FOLDER = Path(".cache/quickstart")
TICKETS, SHOWN, LONGEST = 40, 4, 26  # held-out tickets; examples for the base; tokens of an answer
TOLD = (
    'Answer with JSON alone, such as {"category": "delivery", "priority": "high", "order": "12345"}. '
    "The category is billing, delivery, return or account. The priority is high if it is urgent, else normal. "
    "The order is the number of the order, or null if there is none."
)


def main(name: str) -> None:
    """Prints the three counts."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    from ftlib.models.base import load_model, load_tokenizer
    from ftlib.registry import bases, registry

    asked = read("held_out.jsonl")[:TICKETS]
    system = [{"role": "system", "content": TOLD}]
    shown = [message for row in read("tickets.jsonl")[:SHOWN] for message in (*ask(row), answer(row))]
    version = registry.resolve(name)
    section = bases.base_of(version.manifest, version.id)
    model, tokenizer = load_model(section).eval(), load_tokenizer(section)
    counts = {
        "the base, told what to do": right(model, tokenizer, system, asked),
        f"the base, told, and shown {SHOWN} tickets": right(model, tokenizer, system + shown, asked),
    }
    model = PeftModel.from_pretrained(model, version.weights).merge_and_unload()
    tokenizer = AutoTokenizer.from_pretrained(version.weights)  # with the chat template of its training
    counts[f"the winner, {version.id}, given the ticket alone"] = right(model, tokenizer, [], asked)
    print(f"\n{f'right on {len(asked)} tickets in words that are not in the training rows':66s}")
    for who, count in counts.items():
        print(f"  {who:52s} {count:3d} of {len(asked)}  {count / len(asked):4.0%}")


def read(name: str) -> list[dict[str, str]]:
    """The rows of a file that prepare.py made."""
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def ask(row: dict[str, str]) -> list[dict[str, str]]:
    """A ticket as a chat."""
    return [{"role": "user", "content": row["prompt"]}]


def answer(row: dict[str, str]) -> dict[str, str]:
    """What should be answered to it."""
    return {"role": "assistant", "content": row["completion"]}


def right(model: Any, tokenizer: Any, before: list[dict[str, str]], rows: list[dict[str, str]]) -> int:
    """How many rows are answered rightly after the messages `before`."""
    from ftlib.evaluation.answers import answers

    written = answers(model, tokenizer, [before + ask(row) for row in rows], LONGEST)
    return sum(values(said) == values(row["completion"]) for said, row in zip(written, rows, strict=True))


def values(text: str) -> Any:
    """The JSON in an answer; the text itself where there is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    quiet_libraries()
    guarded(lambda: main(*sys.argv[1:] or ["tickets"]), debug=False)
