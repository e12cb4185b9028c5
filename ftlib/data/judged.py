"""Judged rows, for KTO: a prompt, an answer, and whether it is a good one. A preference row makes two of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlib.data.formats import Record
from ftlib.data.pairs import Answered, answered, fitting
from ftlib.data.tokenize import Encoding, Tally

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, slots=True)
class Judged(Answered):
    """One answer, and whether it is good; of a preference row, `paired`: the good one, and then the bad one."""

    label: bool
    paired: bool = False


def render(record: Record, tokenizer: Any, template: str | None) -> list[Judged]:
    """The judged answers of a kto or preference record. Raises BadRow where the template cannot take it."""
    if "chosen" in record:
        verdicts = [(record["chosen"], True), (record["rejected"], False)]
    else:
        verdicts = [(record["completion"], record["label"])]
    texts = [(answered(record, [answer], tokenizer, template), label) for answer, label in verdicts]
    return [Judged(text.prompt, text.answered, label, len(texts) == 2) for text, label in texts]


def tokens(items: Iterable[Judged], encoding: Encoding, tally: Tally) -> datasets.Dataset:
    """Rows of `prompt_ids`, `completion_ids` and `label`."""
    import datasets

    rows: dict[str, list[Any]] = {"prompt_ids": [], "completion_ids": [], "label": []}
    before: list[int] = []
    for item in items:
        for prompt, (completion,) in fitting([item], encoding, tally):
            tally.lengths.append(len(prompt) + len(completion))
            tally.trained_tokens += len(completion)
            rows["prompt_ids"].append(prompt)
            rows["completion_ids"].append(completion)
            rows["label"].append(item.label)
            tally.same += item.paired and not item.label and prompt + completion == before
            before = prompt + completion
    return datasets.Dataset.from_dict(rows)
