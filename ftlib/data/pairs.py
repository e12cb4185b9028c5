"""Preference rows: a prompt, the answer that was chosen and the one that was rejected, as token ids.

The ids are those that TRL's DPOTrainer would make of the same row: the answer begins where the tokens of the prompt
and of the prompt with its answer part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from ftlib.data.formats import Record, Turn
from ftlib.data.render import ended, plain, script_of, without_bos
from ftlib.data.templates import adds_bos, without_opening
from ftlib.data.tokenize import Encoding, Tally, batches, encode

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt as text, and the whole text of each of its answers, the prompt included."""

    prompt: str
    answered: tuple[str, ...]


def render(record: Record, tokenizer: Any, template: str | None) -> list[Answered]:
    """The texts of a preference record. Raises BadRow where the template cannot take it."""
    return [answered(record, [record["chosen"], record["rejected"]], tokenizer, template)]


def answered(record: Record, answers: list[list[Turn]], tokenizer: Any, template: str | None) -> Answered:
    """The prompt of a record and answers to it as text; without a template, the contents one after another."""
    prompt: list[Turn] = record["prompt"]
    if template is None:
        roles = tuple(turn["role"] for turn in prompt)
        bare = without_bos(prompt, tokenizer.bos_token) if adds_bos(tokenizer) else prompt
        before = without_opening("".join(plain(bare, record, roles)), tokenizer)
        said = ["".join(plain(answer, record, tuple(turn["role"] for turn in answer))) for answer in answers]
        return Answered(before, tuple(ended(before + text, tokenizer) for text in said))
    scripts = [script_of(prompt + answer, record, tokenizer, template) for answer in answers]
    before = scripts[0].write(scripts[0].turns[: len(prompt)], asks=True)
    return Answered(before, tuple(script.text for script in scripts))


def tokens(items: Iterable[Answered], encoding: Encoding, tally: Tally) -> datasets.Dataset:
    """Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`; a row whose prompt leaves no room is dropped."""
    import datasets

    rows: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    for prompt, (chosen, rejected) in fitting(items, encoding, tally):
        tally.lengths.append(2 * len(prompt) + len(chosen) + len(rejected))  # what a step computes
        tally.trained_tokens += len(chosen) + len(rejected)
        tally.same += chosen == rejected
        for column, ids in zip(rows.values(), (prompt, chosen, rejected), strict=True):
            column.append(ids)
    return datasets.Dataset.from_dict(rows)


def fitting(items: Iterable[Answered], encoding: Encoding, tally: Tally) -> Iterable[tuple[list[int], list[list[int]]]]:
    """(the prompt's ids, the ids of each answer) of each item, answers cut so that both fit into `max_length`."""
    for batch in batches(items):
        texts = [text for item in batch for text in (item.prompt, *item.answered)]
        ids = iter(encode(texts, encoding))
        for item in batch:
            prompt, *wholes = (next(ids) for _ in range(1 + len(item.answered)))
            start = min(_common(prompt, whole) for whole in wholes)
            room = encoding.max_length - start
            if room <= 0 or any(len(whole) == start for whole in wholes):
                tally.drop(start)
                tally.truncated += room <= 0
                continue
            tally.keep()
            tally.truncated += any(len(whole) > encoding.max_length for whole in wholes)
            yield prompt[:start], [whole[start : start + room] for whole in wholes]


def _common(one: list[int], other: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
