"""Records as text, with the spans of characters that are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ftlib.data.formats import BadRow, Record, Turn
from ftlib.data.script import Script, Span, apply, with_arguments
from ftlib.data.templates import is_opened, unopened, without_opening

__all__ = ["Passage", "Span", "apply", "ended", "is_multi_turn", "render"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A text and the spans of it that are trained on; None stands for all of it, special tokens included. In the
    `silent` spans there is no loss, whatever is trained on besides (`data.train_on_prompt`)."""

    text: str
    spans: tuple[Span, ...] | None
    silent: tuple[Span, ...] = ()


def render(record: Record, tokenizer: Any, template: str | None) -> Passage:
    """The passage of a `messages` or `text` record. Raises BadRow where the template cannot take it."""
    if "text" in record:
        return Passage(ended(without_opening(record["text"], tokenizer), tokenizer), None)
    if template is None:
        return _concatenated(record, tokenizer)
    script = script_of(record["messages"], record, tokenizer, template)
    silent = record.get("silent", ())
    spoken = [index for index, turn in enumerate(script.turns) if turn["role"] == "assistant"]
    trained = [index for index in spoken if index >= record["trained_from"] and index not in silent]
    return Passage(
        script.text,
        tuple(script.answers(trained).values()),
        tuple(script.place(index) for index in silent) if record.get("prompt_too") else (),
    )


def script_of(turns: list[Turn], record: Record, tokenizer: Any, template: str) -> Script:
    """Turns of a record, and what the template gets besides them."""
    given = record.get("given", {})
    turns = with_arguments(turns, lambda chat: apply(chat, tokenizer, template, given))
    return Script(opened_once(turns, record, tokenizer, template), tokenizer, template, given)


def opened_once(turns: list[Turn], record: Record, tokenizer: Any, template: str) -> list[Turn]:
    """The turns without a bos token where the conversation opens, if the template writes one there."""
    bare = without_bos(turns, tokenizer.bos_token)
    if bare == turns or not is_opened(apply(bare, tokenizer, template, record.get("given")), tokenizer.bos_token):
        return turns
    return bare


def without_bos(turns: list[Turn], bos: str | None) -> list[Turn]:
    """The turns without a bos token at the start of the system text and of what is said first below it."""
    first = next((index for index, turn in enumerate(turns) if turn["role"] != "system"), 0)
    return [
        {**turn, "content": said}
        if index <= first and is_opened(turn["content"], bos) and (said := unopened(turn["content"], str(bos))).strip()
        else turn
        for index, turn in enumerate(turns)
    ]


def is_multi_turn(record: Record) -> bool:
    """Whether a record holds more than one question or more than one answer, or what alpaca's template cannot write."""
    turns = record.get("messages") or record.get("prompt", ())
    roles = [turn["role"] for turn in turns]
    return roles.count("user") > 1 or roles.count("assistant") > 1 or _is_rich(turns, record)


def _is_rich(turns: list[Turn], record: Record) -> bool:
    return "given" in record or any(len(turn) > 2 or turn["role"] == "tool" for turn in turns)


def ended(text: str, tokenizer: Any) -> str:
    """The text with the token that ends a sequence at its end, once."""
    eos: str = tokenizer.eos_token
    bare = text.rstrip()
    return text if text.endswith(eos) else bare if bare.endswith(eos) else text + eos


def _concatenated(record: Record, tokenizer: Any) -> Passage:
    prompt, completion = plain(record["messages"], record, ("user", "assistant"))
    prompt = without_opening(prompt, tokenizer)
    text = ended(prompt + completion, tokenizer)
    return Passage(text, ((len(prompt), len(text)),))


def plain(turns: list[Turn], record: Record, roles: tuple[str, ...]) -> list[str]:
    """The contents of turns that no template writes. Raises BadRow for turns that need one."""
    if tuple(turn["role"] for turn in turns) != roles:
        raise BadRow("data.template: none takes one prompt and one completion; choose chatml for conversations")
    if _is_rich(turns, record):
        raise BadRow("data.template: none leaves out tools, thoughts and names; choose chatml")
    return [turn["content"] for turn in turns]
