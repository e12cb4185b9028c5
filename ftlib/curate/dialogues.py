"""A row as what is asked and what is answered, of any format that ftlib trains on, and rows made of such parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ftlib.curate.rows import NAMES, SPLIT, Row, fields_of
from ftlib.data.fields import BadRow, Unweighted
from ftlib.data.formats import detect, unused_fields
from ftlib.data.prompts import READ, prompt_record
from ftlib.errors import DataError

Turn = dict[str, Any]


@dataclass(frozen=True)
class Dialogue:
    """The turns up to an answer, and the answer ('' where none is known). `text_field`: of a row without turns, the
    field that has the text. `others` are the fields that say something besides."""

    prompt: tuple[Turn, ...]
    answer: str
    others: dict[str, Any]
    text_field: str | None = None

    @property
    def question(self) -> str:
        """The last turn before the answer."""
        return str(self.prompt[-1]["content"])

    def asking(self, question: str) -> tuple[Turn, ...]:
        """The turns with another question at the end."""
        return (*self.prompt[:-1], {"role": "user", "content": question})

    def with_question(self, question: str) -> dict[str, Any]:
        """The fields of a row that asks otherwise: with the same answer, or label."""
        if self.text_field is not None:
            return {**self.others, self.text_field: question}
        return self.answered(self.asking(question), self.answer)

    def answered(self, prompt: tuple[Turn, ...], answer: str, reasoning: str = "") -> dict[str, Any]:
        """The fields of a row of turns with an answer; without one, of a row that asks."""
        if not answer:
            return {**self.others, "prompt": list(prompt)}
        return {**self.others, "messages": [*prompt, assistant(answer, reasoning)]}


def dialogue(row: Row) -> Dialogue:
    """The parts of a row. Raises BadRow for a row that has neither a question nor a text."""
    fields = {name: value for name, value in fields_of(row).items() if name != SPLIT}
    if isinstance(fields.get("text"), str) and not any(
        name in fields for name in ("messages", "prompt", "instruction")
    ):
        others = {name: value for name, value in fields.items() if name != "text"}
        return Dialogue(({"role": "user", "content": fields["text"]},), "", others, "text")
    try:
        name = detect("auto", [name for name in fields if name not in NAMES], "the row")
        if name not in READ:
            raise BadRow(f"it is a row of {name}, which asks nothing")
        record = prompt_record(name, fields)
    except DataError as error:
        raise BadRow(str(error).partition(": ")[2].partition(". ")[0]) from None
    except Unweighted:
        raise BadRow("it says that it is not to be used") from None
    if not record["prompt"] or record["prompt"][-1]["role"] != "user":
        raise BadRow("it does not end with a question")
    others = {key: fields[key] for key in unused_fields(name, fields) if key in fields}
    return Dialogue(tuple(record["prompt"]), str(record["answer"]), others)


def assistant(answer: str, reasoning: str = "") -> Turn:
    """The turn of an answer."""
    turn = {"role": "assistant", "content": answer}
    return {**turn, "reasoning_content": reasoning} if reasoning else turn


def pair(question: str, answer: str) -> list[Turn]:
    """The turns of a question and its answer."""
    return [{"role": "user", "content": question}, assistant(answer)]
