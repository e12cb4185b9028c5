"""Prompts that the model answers itself, for GRPO, RLOO and on-policy distillation, beside the answer that is right.

The answer is the last one of a conversation, or what a column says (`answer`, `ground_truth`, `solution` ...). The
other columns of a row go to the rewards under their own names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ftlib.data.fields import BadRow, printed
from ftlib.data.formats import (
    GIVEN,
    SYSTEM,
    TURNS,
    Record,
    Turn,
    answer_to,
    check_row,
    given_with,
    normalize,
    preference,
    prompt_of,
    take_weights,
    turns_of,
    with_system,
)
from ftlib.data.render import plain, script_of
from ftlib.data.templates import without_opening
from ftlib.data.tokenize import Encoding, Tally, batches, encode

if TYPE_CHECKING:
    import datasets

# Where the right answer stands; the first that is there counts. `reward_model` is verl's.
TRUTH = ("answer", "ground_truth", "solution", "reference_answer", "expected_answer", "final_answer", "target",
         "reference", "expected", "gold", "label", "reward_model")  # fmt: skip
# Names that TRL's online trainers keep for themselves.
TRLS_OWN = frozenset(("prompt", "prompts", "completions", "completion", "completion_ids", "answer", "trainer_state",
                      "log_extra", "log_metric", "environments", "image", "images", "tools"))  # fmt: skip
TRLS_WAY = "TRL writes the prompts of this method by itself, from their turns alone: take it out of the row"


Prompt = tuple[Any, str, str, dict[str, Any]]  # as TRL takes it (turns, or text without a template), as text,
# the answer known, the other columns


def prompt_record(format_name: str, fields: dict[str, Any]) -> Record:
    """{"prompt": [turn ...], "answer": str, "columns": {...}} of one row; '' where no answer is known. Raises BadRow,
    and Unweighted for a row that says that it is not trained on."""
    check_row(fields)
    prompt, answer = READ[format_name](fields)
    take_weights(prompt)
    truth = next((fields[key] for key in TRUTH if fields.get(key) not in (None, "")), None)
    if isinstance(truth, dict):  # verl's {"ground_truth": ..., "style": ...}
        truth = truth.get("ground_truth", truth)
    columns = {key: value for key, value in fields.items() if _is_column(key)}
    answer = answer if truth is None else printed(truth)
    return {"prompt": prompt, "answer": answer, "columns": columns} | given_with(fields)


def _is_column(key: str) -> bool:
    return not key.startswith("_") and key not in (*TRLS_OWN, *TURNS, *SYSTEM, *GIVEN)


def render(record: Record, tokenizer: Any, template: str | None) -> list[Prompt]:
    """The item of a prompt's record. Raises BadRow where the template cannot take it, or TRL not write it."""
    turns, rest = record["prompt"], (record["answer"], record["columns"])
    for key in record.get("given", ()):
        raise BadRow(f"it has '{key}': {TRLS_WAY}")
    if any("tool_calls" in turn or turn["role"] == "tool" for turn in turns):
        raise BadRow(f"it has 'tool_calls': {TRLS_WAY}")
    if template is None:
        text = without_opening(plain(turns, record, ("user",))[0], tokenizer)
        return [(text, text, *rest)]
    script = script_of(turns, record, tokenizer, template)
    script.check()
    return [(script.turns, script.write(script.turns, asks=True), *rest)]


def tokens(items: Iterable[Prompt], encoding: Encoding, tally: Tally) -> datasets.Dataset:
    """Rows of `prompt`, `answer` and the other columns; a prompt longer than `max_length` tokens is dropped."""
    import datasets

    kept: list[Prompt] = []
    for batch in batches(items):
        ids = encode([text for _, text, _, _ in batch], encoding)
        for item, prompt_ids in zip(batch, ids, strict=True):
            if len(prompt_ids) > encoding.max_length:
                tally.drop(len(prompt_ids))
                continue
            tally.lengths.append(len(prompt_ids))
            tally.keep()
            kept.append(item)
    names = dict.fromkeys(name for *_, columns in kept for name in columns)
    rows = {"prompt": [prompt for prompt, *_ in kept], "answer": [answer for _, _, answer, _ in kept]}
    rows |= {name: _alike([columns.get(name) for *_, columns in kept]) for name in names}
    return datasets.Dataset.from_dict(rows)


def _alike(values: list[Any]) -> list[Any]:
    """The values of a column as a table holds them: of one type, or else all as they print."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and kinds <= {str, int, float, bool}:
        return values
    return [None if value is None else printed(value) for value in values]


def _before_the_answer(turns: list[Turn]) -> tuple[list[Turn], str]:
    """A conversation parted before its last answer; one that ends with a question has none."""
    last = turns[-1] if turns else {"role": "system", "content": ""}
    if last["role"] == "system":
        raise BadRow("it has no user turn to answer")
    end = len(turns) - 1 if last["role"] == "assistant" else len(turns)
    if not any(turn["role"] == "user" for turn in turns[:end]):
        raise BadRow("it has no user turn before the answer")
    return turns[:end], last["content"] if end < len(turns) else ""


def _from_turns(key: str) -> Callable[[dict[str, Any]], tuple[list[Turn], str]]:
    return lambda fields: _before_the_answer(with_system(fields, turns_of(fields, key)))


def _from_columns(asked: str, answer: str) -> Callable[[dict[str, Any]], tuple[list[Turn], str]]:
    def read(fields: dict[str, Any]) -> tuple[list[Turn], str]:
        prompt = prompt_of(fields, asked)
        return prompt, answer_to(fields, answer, prompt)[-1]["content"] if answer else ""

    return read


def _from_preference(fields: dict[str, Any]) -> tuple[list[Turn], str]:
    record = preference(fields)
    return record["prompt"], record["chosen"][-1]["content"]


READ: dict[str, Callable[[dict[str, Any]], tuple[list[Turn], str]]] = {
    "preference": _from_preference,
    "messages": _from_turns("messages"),
    "sharegpt": _from_turns("conversations"),
    "alpaca": _from_columns("instruction", "output"),
    "stanford": lambda fields: _before_the_answer(normalize("stanford", fields)["messages"]),
    "prompt_completion": _from_columns("prompt", "completion"),
    "prompt_only": _from_columns("prompt", ""),
}
