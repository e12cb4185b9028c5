"""The formats that rows come in, and the one record that each becomes.

    messages        {"messages": [turn ...], "trained_from": index of the first turn that may be trained on}
    text            {"text": str}
    preference      {"prompt": [turn ...], "chosen": [turn ...], "rejected": [turn ...]}
    kto             {"prompt": [turn ...], "completion": [turn ...], "label": bool}
    classification  {"text": str, "label": str | int}
    prompt_only     {"prompt": [turn ...]}

A turn is what `turns` makes of it. The alpaca, sharegpt and prompt_completion formats become messages; the formats are
those of TRL and LLaMA-Factory. Where a row says so, a record has more: "silent", the indices of turns that carry no
loss, and "given", what the chat template gets besides the turns (tools, and TRL's `chat_template_kwargs`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from ftlib.data import fields as say
from ftlib.data.cells import turns_in
from ftlib.data.fields import BadRow, Unweighted, from_json, printed
from ftlib.data.read import shorten
from ftlib.data.turns import READ, REASONING, Turn, checked, read_tools, read_turn
from ftlib.errors import DataError

__all__ = ["BadRow", "Record", "Turn", "detect", "normalize", "unused_fields"]

Record = dict[str, Any]

# Which columns a format needs, any one of the alternatives. The most telling first: `auto` takes the first that fits.
COLUMNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "preference": (
        ("prompt", "chosen", "rejected"),
        ("conversations", "chosen", "rejected"),
        ("instruction", "chosen", "rejected"),
        ("chosen", "rejected"),
    ),
    "kto": (
        ("prompt", "completion", "label"),
        ("messages", "label"),
        ("prompt", "completion", "kto_tag"),
        ("messages", "kto_tag"),
        ("conversations", "kto_tag"),
        ("instruction", "output", "kto_tag"),
    ),
    "messages": (("messages",),),
    "sharegpt": (("conversations",),),
    "alpaca": (("instruction", "output"),),
    "stanford": (("instruction", "output"),),
    "prompt_completion": (("prompt", "completion"),),
    "classification": (("text", "label"),),
    "text": (("text",),),
    "prompt_only": (("prompt",),),
}
BELOW = "\n"  # between the instruction and its input; in Stanford's own prompt (Taori et al. 2023) a heading
HEADED = "\n\n### Input:\n"
ASIDE = ("input", "history")  # parts of a conversation that are read beside `instruction`
WITHOUT_TURNS = ("text", "classification", "prompt_only")
TURNS = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
SYSTEM = ("system", "system_prompt", "system_message")
GIVEN = ("tools", "functions", "chat_template_kwargs")
LABELS = {
    **{"true": True, "1": True, "yes": True, "good": True, "desirable": True, "chosen": True, "+1": True},
    **{"false": False, "0": False, "no": False, "bad": False, "undesirable": False, "rejected": False, "-1": False},
}


def detect(wanted: str, columns: Iterable[str], name: str) -> str:
    """The format of rows with these columns, or `wanted` when it fits them. Raises DataError when none fits."""
    there = list(columns)
    candidates = COLUMNS if wanted == "auto" else {wanted: COLUMNS[wanted]}
    for format_name, alternatives in candidates.items():
        if any(set(needed) <= set(there) for needed in alternatives):
            return format_name
    needs = "; ".join(f"{candidate}: {_listed(alternatives)}" for candidate, alternatives in candidates.items())
    found = ", ".join(shorten(column) for column in there) or "none"
    fits = "fit no format" if wanted == "auto" else f"do not fit data.format: {wanted}"
    raise DataError(
        f"{name}: its columns ({found}) {fits}. Columns needed: {needs}. "
        "Name the file's own columns under data.columns, for example {prompt: question, completion: answer}, or "
        "{text: '0', label: '1'} for a CSV or TSV file without a header."
    )


def normalize(format_name: str, fields: dict[str, Any]) -> Record:
    """The canonical record of one row. Raises BadRow, and Unweighted for a row that says that it is not trained on."""
    check_row(fields)
    _refuse_lost(format_name, fields)
    return NORMALIZERS[format_name](fields) | given_with(fields)


def check_row(fields: dict[str, Any]) -> None:
    """Raises BadRow for what the row wants and nobody does, and Unweighted where it is not to be trained on."""
    say.refuse(fields, say.REFUSED_IN_ROWS, "the row")
    say.refuse_unknown_weights((key for key, value in fields.items() if value not in (None, "")), "the row")
    if say.weight_of(fields, "the row") == 0:
        raise Unweighted


def unused_fields(format_name: str, fields: dict[str, Any], *, all_read: bool = False) -> Iterator[str]:
    """The names of the fields of a row that nobody reads. `all_read`: rewards read whatever stands at the top."""
    read = frozenset(fields) if all_read else _read_by(format_name, frozenset(fields))
    return say.unused({key: value for key, value in fields.items() if key not in GIVEN}, read, READ)


def _refuse_lost(format_name: str, fields: dict[str, Any]) -> None:
    """Raises BadRow for a part of the conversation that stands in a column of its own, which the format does not
    read."""
    columns = _columns(format_name, frozenset(fields))
    if not columns or format_name in WITHOUT_TURNS:
        return
    for key in ASIDE:
        if _held(fields.get(key)) and "instruction" not in columns:
            raise BadRow(
                f"the row has '{key}', which is read beside 'instruction' and not beside '{columns[0]}': write it into "
                f"'{columns[0]}', or take it out (data.ignore_columns: [{key}] does)"
            )
    for key in REASONING:
        if _held(fields.get(key)):
            raise BadRow(
                f"the row has '{key}', and a thought belongs to a turn: give the answer as a turn with "
                "'reasoning_content', "
                f"or take it out (data.ignore_columns: [{key}] does)"
            )


@cache
def _columns(format_name: str, there: frozenset[str]) -> tuple[str, ...]:
    return next((needed for needed in COLUMNS[format_name] if set(needed) <= there), ())


@cache
def _read_by(format_name: str, there: frozenset[str]) -> frozenset[str]:
    columns = _columns(format_name, there)
    said = {*say.REFUSED_IN_ROWS, *SYSTEM, *GIVEN}
    return frozenset((*columns, *(ASIDE if "instruction" in columns else ()), *said))


def _listed(alternatives: tuple[tuple[str, ...], ...]) -> str:
    return " or ".join(" + ".join(needed) for needed in alternatives)


def given_with(fields: dict[str, Any]) -> Record:
    """What the chat template gets besides the turns."""
    tools = [tool for key in ("tools", "functions") if _held(fields.get(key)) for tool in read_tools(fields[key], key)]
    given: dict[str, Any] = {"tools": tools} if tools else {}
    settings = from_json(fields.get("chat_template_kwargs") or {}, "'chat_template_kwargs'")
    if not isinstance(settings, dict) or any(not isinstance(key, str) or key in _taken() for key in settings):
        raise BadRow("'chat_template_kwargs' must be an object with the template's own settings")
    given |= settings
    return {"given": given} if given else {}


@cache
def _taken() -> frozenset[str]:
    from transformers import PreTrainedTokenizerBase

    return frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) | {"messages"}


def _held(value: Any) -> bool:
    """Whether a field holds something; a cell of a table writes nothing in several ways."""
    nothing = ("", "[]", "{}", "null", "None")
    return value not in (None, [], {}) and not (isinstance(value, str) and value.strip() in nothing)


def _value(fields: dict[str, Any], key: str) -> Any:
    if fields.get(key) is None:
        raise BadRow(f"'{key}' is missing")
    return fields[key]


def _text(fields: dict[str, Any], key: str, *, optional: bool = False) -> str:
    """The text in a field. An optional one that is missing or blank is the empty string."""
    value = (fields.get(key) or "") if optional else _value(fields, key)
    return checked(value, f"'{key}'", blank=optional)


def turns_of(fields: dict[str, Any], key: str) -> list[Turn]:
    """The turns in a field that holds a list of them, their JSON, or one turn alone. Blank system turns are left
    out."""
    value = _value(fields, key)
    if isinstance(value, str):
        found = turns_in(value, f"'{key}'")
        value = value if found is None else found
    turns = [value] if isinstance(value, dict) else value
    if not isinstance(turns, list):
        raise BadRow(f"'{key}' must be a list of turns, but is a {type(value).__name__}")
    if not turns:
        raise BadRow(f"'{key}' is empty")
    read = [read_turn(turn, f"'{key}[{index}]'") for index, turn in enumerate(turns)]
    return [turn for turn in read if turn["content"] or turn["role"] != "system"]


def with_system(fields: dict[str, Any], turns: list[Turn]) -> list[Turn]:
    """The turns below the system text that stands in a column of its own."""
    found = {key: text for key in SYSTEM if (text := _text(fields, key, optional=True))}
    if not found:
        return turns
    key, system = next(iter(found.items()))
    said = {*found.values(), *(turn["content"] for turn in turns if turn["role"] == "system")}
    if len(said) > 1:
        raise BadRow(f"'{key}' and another system text of the row differ: keep one")
    if turns and turns[0]["role"] == "system":
        return turns
    return [{"role": "system", "content": system}, *turns]


def _conversation(turns: list[Turn], trained_from: int = 0) -> Record:
    roles = [turn["role"] for turn in turns if turn["role"] != "system"]
    if "assistant" not in roles:
        raise BadRow("it has no assistant turn to learn from")
    if roles[0] == "assistant":
        raise BadRow("its first turn is the assistant's: a user turn must come before it")
    silent = take_weights(turns)
    answers = {index for index, turn in enumerate(turns) if turn["role"] == "assistant" and index >= trained_from}
    if answers and answers <= set(silent):
        raise Unweighted
    record = {"messages": turns, "trained_from": trained_from}
    return record | ({"silent": silent} if silent else {})


def take_weights(turns: list[Turn]) -> list[int]:
    """Takes the weights out of the turns: the indices of those that carry no loss."""
    weights = [turn.pop("weight", None) for turn in turns]
    for index, (turn, weight) in enumerate(zip(turns, weights, strict=True)):
        if weight == 1 and turn["role"] != "assistant":
            raise BadRow(
                f"turn {index} is a {turn['role']} turn that says that it is trained on, and only the assistant's are: "
                "take that away, or set data.train_on_prompt for all rows"
            )
    return [index for index, weight in enumerate(weights) if weight == 0]


def prompt_of(fields: dict[str, Any], key: str = "prompt") -> list[Turn]:
    turns = with_system(fields, _asked(fields, key))
    if not turns or turns[-1]["role"] not in ("user", "tool"):
        raise BadRow(f"'{key}' must end with a user turn")
    return turns


def _asked(fields: dict[str, Any], key: str) -> list[Turn]:
    if key == "instruction":
        return _instructed(fields)
    text = fields.get(key)
    if isinstance(text, str) and turns_in(text, f"'{key}'") is None:
        return [{"role": "user", "content": _text(fields, key)}]
    return turns_of(fields, key)


def answer_to(fields: dict[str, Any], key: str, prompt: list[Turn]) -> list[Turn]:
    """The turns that answer `prompt`; where they repeat it, as on many Hub data sets, without it."""
    text = fields.get(key)
    if isinstance(text, str) and turns_in(text, f"'{key}'") is None:
        return [{"role": "assistant", "content": _text(fields, key)}]
    turns = turns_of(fields, key)
    for start in (prompt, [turn for turn in prompt if turn["role"] != "system"]):
        if start and turns[: len(start)] == start:
            turns = turns[len(start) :]
    if not turns or turns[0]["role"] != "assistant":
        raise BadRow(f"'{key}' must begin with an assistant turn")
    return turns


def _judged_answer(fields: dict[str, Any], key: str, prompt: list[Turn]) -> list[Turn]:
    """An answer that is compared or judged as a whole: the loss is on all of it."""
    turns = answer_to(fields, key, prompt)
    for index, turn in enumerate(turns):
        if turn["role"] != "assistant":
            raise BadRow(f"'{key}' holds a {turn['role']} turn after the assistant's, and the loss would be on it too")
        if turn.pop("weight", 1) == 0:
            raise BadRow(f"'{key}' says of turn {index} that it is not trained on: an answer is judged as a whole")
    return turns


def _messages(fields: dict[str, Any]) -> Record:
    return _conversation(with_system(fields, turns_of(fields, "messages")))


def _sharegpt(fields: dict[str, Any]) -> Record:
    return _conversation(with_system(fields, turns_of(fields, "conversations")))


def _alpaca(fields: dict[str, Any], between: str = BELOW) -> Record:
    turns = [*_instructed(fields, between), {"role": "assistant", "content": _text(fields, "output")}]
    return _conversation(with_system(fields, turns))


def _instructed(fields: dict[str, Any], between: str = BELOW) -> list[Turn]:
    asked = [_text(fields, "instruction"), _text(fields, "input", optional=True)]
    return [
        *_history(fields.get("history") or []),
        {"role": "user", "content": between.join(part for part in asked if part)},
    ]


def _history(pairs: Any) -> list[Turn]:
    if not isinstance(pairs, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise BadRow("'history' must be a list of [question, answer] pairs")
    return [
        {"role": role, "content": checked(content, f"'history[{index}]'")}
        for index, pair in enumerate(pairs)
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]


def _prompt_completion(fields: dict[str, Any]) -> Record:
    prompt = prompt_of(fields)
    return _conversation(prompt + answer_to(fields, "completion", prompt), trained_from=len(prompt))


def _plain_text(fields: dict[str, Any]) -> Record:
    return {"text": _text_alone(fields)}


def _text_alone(fields: dict[str, Any]) -> str:
    """The text of a row that is written as it stands: no chat template puts a system text or tools before it."""
    for key in (*SYSTEM, *GIVEN):
        if _held(fields.get(key)):
            raise BadRow(
                f"the row has '{key}', and no chat template writes it beside 'text': write it into the text, or take "
                "it "
                f"out (data.ignore_columns: [{key}] does)"
            )
    return _text(fields, "text")


def preference(fields: dict[str, Any]) -> Record:
    keys = [key for key in ("prompt", "conversations", "instruction") if key in fields]
    prompt = prompt_of(fields, keys[0]) if keys else _shared(fields)
    chosen, rejected = (_judged_answer(fields, key, prompt) for key in ("chosen", "rejected"))
    take_weights(prompt)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _shared(fields: dict[str, Any]) -> list[Turn]:
    """The prompt of a row that has none: the turns with which both answers begin."""
    if any(isinstance(fields.get(key), str) for key in ("chosen", "rejected")):
        raise BadRow("'prompt' is missing, and 'chosen' and 'rejected' are no turns from which it could be read")
    chosen, rejected = (turns_of(fields, key) for key in ("chosen", "rejected"))
    same = [one for one, other in zip(chosen, rejected, strict=False) if one == other]
    while same and same[-1]["role"] == "assistant":  # two equal answers are no prompt
        same.pop()
    if not same or chosen[: len(same)] != same:
        raise BadRow("'chosen' and 'rejected' must begin with the same prompt")
    return with_system(fields, same)


def _kto(fields: dict[str, Any]) -> Record:
    key = "label" if fields.get("label") is not None else "kto_tag" if "kto_tag" in fields else "label"
    label = LABELS.get(printed(_value(fields, key)).strip().lower())
    if label is None:
        raise BadRow(f"'{key}' must be true or false, but is {fields[key]!r}")
    if "prompt" in fields or "instruction" in fields:
        key, answer = ("prompt", "completion") if "prompt" in fields else ("instruction", "output")
        prompt = prompt_of(fields, key)
        completion = _judged_answer(fields, answer, prompt)
        take_weights(prompt)
        return {"prompt": prompt, "completion": completion, "label": label}
    key = "messages" if "messages" in fields else "conversations"
    turns = with_system(fields, turns_of(fields, key))
    if turns[-1].get("weight") == 0:
        raise BadRow(f"'{key}' says of its last turn that it is not trained on, and that is what the label judges")
    turns = _conversation(turns)["messages"]
    if turns[-1]["role"] != "assistant":
        raise BadRow(f"'{key}' must end with the assistant turn that the label judges")
    return {"prompt": turns[:-1], "completion": turns[-1:], "label": label}


def _classification(fields: dict[str, Any]) -> Record:
    label = _value(fields, "label")
    if isinstance(label, float) and label.is_integer():  # Parquet files made from columns with gaps
        label = int(label)
    if isinstance(label, bool):
        return {"text": _text_alone(fields), "label": printed(label)}
    if isinstance(label, int):
        return {"text": _text_alone(fields), "label": int(label)}
    return {"text": _text_alone(fields), "label": _text(fields, "label").strip()}


NORMALIZERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    "preference": preference,
    "kto": _kto,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "stanford": lambda fields: _alpaca(fields, HEADED),
    "prompt_completion": _prompt_completion,
    "classification": _classification,
    "text": _plain_text,
    "prompt_only": lambda fields: {"prompt": prompt_of(fields)},
}
