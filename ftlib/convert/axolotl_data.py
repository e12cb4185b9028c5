"""Axolotl's data sets: the `type` of each says its columns, and by which text a row is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftlib.convert.conversion import Conversion, Function

# Axolotl's names of chat templates, and ours. Of the others the tokenizer's own is taken: Axolotl's is a copy of it.
TEMPLATES = {
    "alpaca": "alpaca",
    "alpaca_chat": "alpaca_chat",
    "chatml": "chatml",
    "gemma": "gemma",
    "gemma3": "gemma3",
    "llama3": "llama3",
    "qwen_25": "qwen",
    "qwen3": "qwen3",
    "tokenizer_default": "tokenizer",
}
COPIES = (
    "mistral_v1 mistral_v2v3 mistral_v3_tekken mistral_v7_tekken cohere llama4 phi_3 phi_35 deepseek_v2 "
    "deepseek_v3 jamba qwen3_5 falcon_h1 nemotron_h exaone exaone4 gemma3n gemma4 gemma4_unified command_a aya"
)
SEEING = {"llava", "pixtral", "qwen2_vl", "llama3_2_vision"}
# Pairs: `chatml.intel` is a template and the columns of the rows.
PAIRS: dict[str, dict[str, str]] = {
    "ultra": {},
    "prompt_pairs": {},
    "default": {},
    "argilla_chat": {},
    "intel": {"prompt": "question"},
    "icr": {"prompt": "input"},
    "argilla": {"prompt": "instruction", "chosen": "chosen_response", "rejected": "rejected_response"},
}
JUDGED: dict[str, dict[str, str]] = {"ultra": {}, "prompt_pairs": {}, "argilla": {"prompt": "instruction"},
                                     "intel": {"prompt": "question"}}  # fmt: skip
STANFORD = {"alpaca": "alpaca", "alpaca:chat": "alpaca_chat"}  # one prompt in two styles
STYLES = {"chatml": "chatml", "llama3": "llama3"}
ROLES = {"user": {"user", "human"}, "assistant": {"assistant", "gpt", "model", "bot", "chatgpt"},
         "system": {"system", "developer"}, "tool": {"tool", "function", "observation"}}  # fmt: skip
THOUGHTS = {"thinking", "reasoning", "reasoning_content"}
READ_WEIGHTS = {"weight", "train", "training", "loss", "loss_mask", "train_on_turn"}  # by their names, in each turn
WITHOUT_A_WORD = {"path", "type", "split", "name", "data_files", "ds_type"}
TURNS = ("field_messages", "message_property_mappings", "message_field_role", "message_field_content", "conversation")
PREFERRED = ("field_chosen", "field_rejected")
TOKENIZED = "its rows are tokens already; ftlib makes them itself: name the rows as text"


@dataclass
class Reading:
    """How a data set is read here: its format, our columns and its own, and the template of its rows. `why_not` is the
    reason where it cannot be read."""

    format: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    template: str | None = None  # None: plain text
    why_not: str | None = None
    note: str = ""


def holds_out(conversion: Conversion) -> bool:
    """Whether there are rows to evaluate on."""
    return bool(conversion.get("val_set_size") or conversion.get("test_datasets"))


def _reading(conversion: Conversion, member: Mapping[str, Any]) -> Reading:
    kind = member.get("type")
    if isinstance(kind, Mapping):
        return _own_prompt(kind)
    if kind is None:
        return Reading(why_not=TOKENIZED)
    base, _, style = str(kind).partition(".")
    if kind in STANFORD:
        return Reading("stanford", template=STANFORD[kind])
    if kind in ("completion", "pretrain"):
        column = member.get("field") or member.get("text_column") or "text"
        return Reading("text", {} if column == "text" else {"text": column})
    if kind == "bradley_terry.chat_template":
        return Reading("preference", {"prompt": "input"}, _template(conversion, member))
    if kind in ("chat_template", "sharegpt"):
        return _chat(conversion, member)
    if base == "chat_template" and conversion.get("rl"):
        return _preferred(conversion, member, style)
    if base in STYLES and style in (JUDGED if conversion.get("rl") == "kto" else PAIRS):
        judged = conversion.get("rl") == "kto"
        return Reading("kto" if judged else "preference", (JUDGED if judged else PAIRS)[style], STYLES[base])
    return Reading(why_not=f"the prompt of type '{kind}' is Axolotl's own text: write the rows as messages, type "
                           "chat_template")  # fmt: skip


def _chat(conversion: Conversion, member: Mapping[str, Any]) -> Reading:
    names = dict(member.get("message_property_mappings") or {})
    role = names.get("role") or member.get("message_field_role") or "role"
    content = names.get("content") or member.get("message_field_content") or "content"
    older = member.get("type") == "sharegpt" or (role, content) == ("from", "value")
    column = member.get("field_messages") or ("conversations" if older else "messages")
    ours = "conversations" if older else "messages"
    if (role, content) not in (("from", "value"), ("role", "content")):
        return Reading(
            why_not=f"a turn's role and text stand under '{role}' and '{content}': call them role and content"
        )
    columns = {} if column == ours else {ours: column}
    return Reading("sharegpt" if older else "messages", columns, _template(conversion, member))


def _preferred(conversion: Conversion, member: Mapping[str, Any], style: str) -> Reading:
    """Pairs whose answers are turns: beside the turns before them, or whole conversations."""
    template = _template(conversion, member)
    if style == "argilla":
        return Reading("preference", {}, template)
    names = {"conversations": member.get("field_messages", "messages")}
    names |= {key: member.get(f"field_{key}", key) for key in ("chosen", "rejected")}
    return Reading("preference", {ours: theirs for ours, theirs in names.items() if ours != theirs}, template)


def _own_prompt(kind: Mapping[str, Any]) -> Reading:
    """A type that its author has written: only one without any text of its own has an equal here."""
    columns = {"prompt": kind.get("field_instruction", "instruction"), "completion": kind.get("field_output", "output")}
    texts = [kind.get(name) for name in ("format", "no_input_format", "system_prompt", "system_format")]
    if any(text not in (None, "", "{instruction}") for text in texts) or kind.get("field_input"):
        return Reading(why_not="its prompt is a text of your own: write it into the rows (prompt, completion), with "
                               "data.template: none")  # fmt: skip
    return Reading("prompt_completion", columns, "none")


def _template(conversion: Conversion, member: Mapping[str, Any]) -> str:
    return str(member.get("chat_template") or conversion.get("chat_template") or "tokenizer_default")


def template_of(name: str) -> tuple[str | None, str]:
    """Our name for a chat template of Axolotl's, and what is different; None where there is none."""
    if name in TEMPLATES:
        return TEMPLATES[name], ""
    if name in COPIES.split():
        return "tokenizer", f"Axolotl's '{name}' is a copy of the model's own template"
    if name.startswith("tokenizer_default_fallback_"):
        return "auto", "the fallback is ftlib's: see 'ftlib check'"
    return None, ""


def _datasets(conversion: Conversion, key: str, value: Any) -> None:
    members = value if isinstance(value, list) else [value]
    if not all(isinstance(member, Mapping) for member in members):
        return conversion.refuse(key, "it is a list of data sets, each a mapping with a path and a type")
    readings = [_reading(conversion, member) for member in members]
    if (why := next((reading.why_not for reading in readings if reading.why_not), None)) is not None:
        return conversion.refuse(key, why)
    templates = list(dict.fromkeys(reading.template for reading in readings))
    if len(templates) > 1:
        told = f"they are written by {len(templates)} templates, and a run has one: write the rows alike"
        return conversion.refuse(key, told)
    _put_train(conversion, key, members, readings)
    _put_template(conversion, key, templates[0])
    for number, member in enumerate(members):
        for name in member:
            if name not in WITHOUT_A_WORD:
                _member_key(conversion, f"{key}[{number}].{name}", str(name), member[name])
    return None


def _put_train(conversion: Conversion, key: str, members: list[Mapping[str, Any]], readings: list[Reading]) -> None:
    found = [_source(member, reading) for member, reading in zip(members, readings, strict=True)]
    look = any(member.get("data_files") for member in members)
    note = "a file of a data set on the Hub: download it, and name it as it lies here" if look else ""
    if len(found) == 1 and not conversion.get("test_datasets"):
        single = {"train" if name == "path" else name: told for name, told in found[0].items()}
        return conversion.map(key, {f"data.{name}": told for name, told in single.items()}, note, look)
    return conversion.map(key, {"data.train": found}, note, look)


def _source(member: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """The member of `data.train`. `path: json` with `data_files` is a file here."""
    files = member.get("data_files")
    file = files[0] if isinstance(files, list) and files else files
    found: dict[str, Any] = {"path": str(file or member.get("path")), "format": reading.format}
    if member.get("drop_system_message") is True:
        found["drop_system_message"] = True
    named = {"columns": reading.columns or None, "hub_config": member.get("name"), "hub_split": member.get("split")}
    if file:
        named = {"columns": named["columns"]}
    return found | {name: told for name, told in named.items() if told not in (None, "train")}


def _put_template(conversion: Conversion, key: str, name: str | None) -> None:
    if name is None:
        conversion.put("data.long_rows", "split", f"{key}: plain text is cut into pieces")
        return
    ours, note = ("none", "") if name == "none" else template_of(name)
    if ours is None:
        told = "ftlib trains on text" if name in SEEING else f"there is no template '{name}': see data.template"
        conversion.refuse("chat_template", told)
        return
    conversion.put("data.template", ours, note or f"{key}: {name}")


def _member_key(conversion: Conversion, key: str, name: str, value: Any) -> None:
    """A key of one data set that does not say where its rows are or how they are written."""
    if value in (None, "", [], {}, False):
        return conversion.harmless(key, "it is empty")
    if name == "drop_system_message" and value is True:
        return conversion.map(key, {}, "it stands with the data set")
    if name in (*TURNS, *PREFERRED, "field", "text_column", "chat_template"):
        return conversion.map(key, {}, "it is in format, columns and template")
    if name == "roles":
        alike = isinstance(value, Mapping) and all(set(said) <= ROLES.get(role, set()) for role, said in value.items())
        return conversion.harmless(key, "ftlib knows these names") if alike else conversion.refuse(
            key, "ftlib knows system, user, human, assistant, gpt and tool: call the roles so")  # fmt: skip
    if name == "roles_to_train" and set(value) <= ROLES["assistant"]:
        return conversion.harmless(key, "the assistant's turns are trained on")
    if name in ("train_on_eos", "train_on_eot") and value == "turn":
        return conversion.harmless(key, "every answer is trained on to its end")
    if name in ("field_thinking", "template_thinking_key") and value in THOUGHTS:
        return conversion.harmless(key, "ftlib reads a thought under this name")
    if name == "message_field_training" and value in READ_WEIGHTS:
        return conversion.harmless(key, "ftlib reads this name in each turn")
    return conversion.refuse(key, REASONS.get(name, "ftlib has no such key of a data set"))


REASONS = {
    "train_on_eos": "every answer is trained on to its end, and nothing besides",
    "train_on_eot": "every answer is trained on to its end, and nothing besides",
    "roles_to_train": "the assistant's turns alone are trained on; a turn's weight of 0 leaves it out",
    "shards": "use data.max_rows, or a slice of the split: hub_split: train[:10%]",
    "revision": "the latest revision of a data set on the Hub is taken",
    "skip": "rows are read from their beginning (data.max_rows)",
    "streaming": "rows are read whole before training, so data sets must fit on the disk",
    "field_thinking": "a thought stands under reasoning_content, reasoning or thinking",
    "message_field_training": "a turn's weight stands under weight, train or loss (0 or 1)",
    "message_field_training_detail": "parts of a turn have no weights of their own",
}


def _pretraining(conversion: Conversion, key: str, value: Any) -> None:
    """Axolotl streams these rows; where `streaming` says so in words, or there is an end by steps, no more is read."""
    members = value if isinstance(value, list) else [{"path": value, "type": "pretrain"}]
    kept = [{**member, "type": "pretrain"} if isinstance(member, Mapping) else {"path": member, "type": "pretrain"}
            for member in members]  # fmt: skip
    _datasets(conversion, key, kept)
    conversion.put("method.type", "pretrain", key)
    conversion.comments.pop("data.long_rows", None)
    conversion.tree.get("data", {}).pop("long_rows", None)


def _test_datasets(conversion: Conversion, key: str, value: Any) -> None:
    member = value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping) else None
    if member is None:
        return conversion.refuse(key, "all evaluation rows are one set: name one (data.eval)")
    reading = _reading(conversion, member)
    if reading.why_not:
        return conversion.refuse(key, reading.why_not)
    found = _source(member, reading)
    found["eval"] = found.pop("path")
    return conversion.map(key, {f"data.{name}": told for name, told in found.items()})


def _val_set_size(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.get("test_datasets"):
        return conversion.harmless(key, "test_datasets has the rows")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        return conversion.refuse(key, "it is a share of the rows here: set data.eval_split below 1")
    return conversion.map(key, {"data.eval_split": value}, "which rows is drawn by data.split_seed" if value else "")


def _chat_template(conversion: Conversion, key: str, value: Any) -> None:
    if (
        "data.template" in conversion.comments
        and conversion.at("data.template") in STANFORD.values()
        and value != "alpaca"
    ):
        return conversion.harmless(key, "type alpaca writes its own text", look=True)
    if (ours := template_of(str(value))[0]) is None:
        why = "ftlib trains on text" if value in SEEING else f"there is no template '{value}': see data.template"
        return conversion.refuse(key, why)
    note = template_of(str(value))[1]
    return conversion.map(key, {"data.template": ours}, note, look=bool(note))


def _ends(conversion: Conversion, key: str, value: Any) -> None:
    return conversion.harmless(key, "ftlib finds where the template ends an answer, and trains on that end too")


def _excess(conversion: Conversion, key: str, value: Any) -> None:
    names = {"drop": "drop", "truncate": "cut", "raise": "error"}
    if value not in names:
        return conversion.refuse(key, "it is drop, truncate or raise")
    return conversion.map(key, {"data.long_rows": names[value]})


FUNCTIONS: dict[str, Function] = {
    "datasets": _datasets,
    "pretraining_dataset": _pretraining,
    "test_datasets": _test_datasets,
    "val_set_size": _val_set_size,
    "chat_template": _chat_template,
    "eot_tokens": _ends,
    "excess_length_strategy": _excess,
}


def finish(conversion: Conversion) -> None:
    """No rows are held out unless the file says so; and texts that are joined to blocks are never too long."""
    if conversion.at("data.eval") is None:
        conversion.default("data.eval_split", 0)
    if conversion.at("method.type") == "pretrain":
        conversion.tree["data"].pop("long_rows", None)
        conversion.tree["data"].pop("packing", None)
    if conversion.at("data.train") is None:
        conversion.fates = [fate for fate in conversion.fates if fate.key != "datasets" or fate.kind == "refused"]
        if not any(fate.key in ("datasets", "pretraining_dataset") for fate in conversion.refused):
            conversion.refuse("datasets", "the file names no rows to train on: set data.train")
    conversion.default("train.eval_strategy", "end")
