"""The kinds of rows that methods train on: from which formats they come, how they are rendered and tokenized.

    answers   input_ids, labels (-100 where no loss is taken)        sft, distill
    text      input_ids, labels: blocks, every token labelled        pretrain
    pairs     prompt_ids, chosen_ids, rejected_ids                   dpo, orpo, simpo, reward
    judged    prompt_ids, completion_ids, label                      kto
    prompts   prompt (turns, or text without a template), answer,    grpo, rloo
              and the other columns of the rows, for their rewards
    labelled  input_ids, labels (the number of the class)            classify

The columns are those that TRL's and transformers' trainers take, so that nothing is tokenized a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ftlib.config.methods import Rows
from ftlib.data import judged, labelled, pairs, prompts, render, tokenize
from ftlib.data.formats import BadRow, Record, normalize
from ftlib.data.tokenize import Encoding, Tally

if TYPE_CHECKING:
    import datasets

CONVERSATIONS = ("messages", "sharegpt", "alpaca", "stanford", "prompt_completion")


@dataclass(frozen=True)
class Kind:
    """`render` makes the items of a record (most often one), or raises BadRow; `tokens` makes rows of the items.

    `lead` is the text of an item that is read before anything is learned: what has to fit into `max_length`. `whole`
    are the texts of an item that each make a row's tokens.
    """

    formats: tuple[str, ...]
    needs: str
    render: Callable[[Record, Any, str | None], list[Any]]
    tokens: Callable[[Iterable[Any], Encoding, Tally], datasets.Dataset]
    lead: Callable[[Any], str]
    whole: Callable[[Any], Sequence[str]]
    read: Callable[[str, dict[str, Any]], Record] = normalize


def _passage(record: Record, tokenizer: Any, template: str | None) -> list[render.Passage]:
    return [render.render(record, tokenizer, template)]


def _document(record: Record, tokenizer: Any, template: str | None) -> list[render.Passage]:
    if record.get("silent"):
        raise BadRow(
            f"turn {record['silent'][0]} is not to be trained on, and method.type: pretrain trains on all tokens"
        )
    return _passage(record, tokenizer, template)


def _before_the_answer(passage: render.Passage) -> str:
    return passage.text[: passage.spans[0][0]] if passage.spans else ""


def _prompt(item: pairs.Answered) -> str:
    return item.prompt


def _nothing(item: Any) -> str:
    return ""


def _text(passage: render.Passage) -> tuple[str]:
    return (passage.text,)


def _answered(item: pairs.Answered) -> tuple[str, ...]:
    return item.answered


KINDS: dict[Rows, Kind] = {
    "answers": Kind((*CONVERSATIONS, "text"), "answers or text", _passage, tokenize.answers, _before_the_answer, _text),
    "text": Kind(("text", "classification", *CONVERSATIONS), "text", _document, tokenize.text, _nothing, _text),
    "pairs": Kind(
        ("preference",), "a chosen and a rejected answer to each prompt", pairs.render, pairs.tokens, _prompt, _answered
    ),
    "judged": Kind(
        ("kto", "preference"), "answers judged good or bad", judged.render, judged.tokens, _prompt, _answered
    ),
    "prompts": Kind(
        (*CONVERSATIONS, "preference", "prompt_only"),
        "prompts",
        prompts.render,
        prompts.tokens,
        itemgetter(1),
        lambda item: (item[1],),
        prompts.prompt_record,
    ),
    "labelled": Kind(
        ("classification",),
        "a text and a label in each row",
        labelled.render,
        labelled.tokens,
        _nothing,
        lambda item: (item[0],),
    ),
}
METHODS = {"preference": "dpo", "kto": "kto", "classification": "classify", "text": "pretrain", "prompt_only": "grpo"}


def method_for(format_name: str) -> str:
    """The first method that rows of a format are for."""
    return METHODS.get(format_name, "sft")
