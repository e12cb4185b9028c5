"""LLaMA-Factory's data sets, by their names in its `dataset_info.json`, and its templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlib.convert import beside
from ftlib.convert.conversion import Conversion, Function
from ftlib.errors import InputError, nearest

REPOSITORY = "https://github.com/hiyouga/LLaMA-Factory/tree/main/data"
MAX_BYTES = 1_000_000
# The small sets that lie in the repository itself; every other one is told by `dataset_info.json`.
TURNS = {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
PAIRS = {"formatting": "sharegpt", "ranking": True, "columns": {"messages": "conversations"}}
SEEN = {"formatting": "sharegpt", "columns": {"messages": "messages", "images": "images"}}
IN_REPOSITORY: dict[str, dict[str, Any]] = {
    "identity": {"file_name": "identity.json"},
    "alpaca_en_demo": {"file_name": "alpaca_en_demo.json"},
    "alpaca_zh_demo": {"file_name": "alpaca_zh_demo.json"},
    "glaive_toolcall_en_demo": {"file_name": "glaive_toolcall_en_demo.json", **TURNS},
    "glaive_toolcall_zh_demo": {"file_name": "glaive_toolcall_zh_demo.json", **TURNS},
    "dpo_en_demo": {"file_name": "dpo_en_demo.json", **PAIRS},
    "dpo_zh_demo": {"file_name": "dpo_zh_demo.json", **PAIRS},
    "kto_en_demo": {"file_name": "kto_en_demo.json", "formatting": "sharegpt",
                    "columns": {"messages": "messages", "kto_tag": "label"}, "tags": {"role_tag": "role"}},
    "c4_demo": {"file_name": "c4_demo.jsonl", "columns": {"prompt": "text"}},
    "wiki_demo": {"file_name": "wiki_demo.txt", "columns": {"prompt": "text"}},
    **{name: {"file_name": f"{name}.json", **SEEN}
       for name in ("mllm_demo", "mllm_audio_demo", "mllm_video_demo", "mllm_video_audio_demo")},
}  # fmt: skip
# LLaMA-Factory's templates, and ours; a note where the two differ. Of the others the tokenizer's own is taken.
TEMPLATES = {
    "llama3": "llama3",
    "chatml": "chatml",
    "qwen": "qwen",
    "qwen3": "qwen3",
    "qwen3_nothink": "chatml",
    "gemma": "gemma",
    "gemma3": "gemma3",
    "mistral": "mistral",
    "phi4": "phi",
    "alpaca": "alpaca",
}
NO_EQUAL = {"default", "fewshot", "empty"}
SEES = ("_vl", "vl_", "llava", "mllama", "pixtral", "paligemma", "audio", "omni", "minicpm_v", "minicpm_o", "ocr",
        "granite3_vision", "intern_vl", "intern_s1", "glm4v", "glm4_5v", "gemma3n", "gemma4n")  # fmt: skip
REMOTE = "REMOTE:"  # LLaMA-Factory's folder of data on the Hub
NOT_TEXT = "ftlib trains on text"


def _info(conversion: Conversion) -> dict[str, Any]:
    """`dataset_info.json`: the one that was asked for, or that of the configuration's `dataset_dir`; else what lies in
    LLaMA-Factory's repository."""
    asked = conversion.asked.dataset_info
    if asked is not None and not asked.is_file():
        raise InputError(f"{asked}: no such file.")
    listed = str(Path(str(conversion.get("dataset_dir", "data"))) / "dataset_info.json")
    place = asked or beside.find(conversion.folder, listed)
    return IN_REPOSITORY if place is None else beside.read_json(place, MAX_BYTES)


def _source(conversion: Conversion, info: Mapping[str, Any], name: str) -> dict[str, Any] | str:
    """The member of `data.train` for a name; a reason as text where there is none."""
    told = info.get(name)
    if not isinstance(told, Mapping):
        hint = "--dataset-info names the dataset_info.json that has it" if info is IN_REPOSITORY else "it is not listed"
        near = nearest(name, info)
        return f"there is no data set '{name}' in dataset_info.json: {hint}{near and '.'}{near}"
    columns = told.get("columns")
    columns = dict(columns) if isinstance(columns, Mapping) else {}
    if any(columns.get(key) for key in ("images", "videos", "audios")):
        return NOT_TEXT
    place = told.get("hf_hub_url") or _file(conversion, told)
    if place is None:
        return "it is on ModelScope, or made by a script: download it, and name the file in data.train"
    if str(place).endswith(".txt"):
        return f"ftlib does not read .txt: put each document of {place} into a line of a .jsonl file"
    found = {"path": str(place), **_format(told, columns)}
    hub = {"hub_config": told.get("subset"), "hub_split": told.get("split")} if told.get("hf_hub_url") else {}
    return found | {key: one for key, one in hub.items() if one not in (None, "train")}


def _file(conversion: Conversion, told: Mapping[str, Any]) -> str | None:
    if not told.get("file_name"):
        return None
    folder = str(conversion.get("dataset_dir", "data"))
    return f"{'data' if folder.startswith(REMOTE) else folder.rstrip('/')}/{told['file_name']}"


def _format(told: Mapping[str, Any], columns: dict[str, Any]) -> dict[str, Any]:
    """LLaMA-Factory's `formatting`, `ranking`, `columns` and `tags` as our format and columns."""
    turns = told.get("formatting") == "sharegpt"
    tags = told.get("tags")
    openai = isinstance(tags, Mapping) and tags.get("role_tag") == "role"
    if told.get("ranking"):
        ours = {"messages": "conversations" if turns else "prompt", "prompt": "instruction", "query": "input"}
        return _named("preference", ours | {"chosen": "chosen", "rejected": "rejected"}, columns)
    if columns.get("kto_tag"):
        ours = {"messages": "messages" if openai else "conversations", "prompt": "instruction", "response": "output",
                "query": "input", "kto_tag": "kto_tag"}  # fmt: skip
        return _named("kto", ours, columns)
    if turns:
        ours = {"messages": "messages" if openai else "conversations", "tools": "tools", "system": "system"}
        return _named("messages" if openai else "sharegpt", ours, columns)
    if set(columns) == {"prompt"} and columns["prompt"] == "text":
        return {"format": "text"}
    ours = {"prompt": "instruction", "query": "input", "response": "output", "history": "history", "system": "system"}
    return _named("alpaca", ours, columns)


def _named(format_name: str, ours: Mapping[str, str], columns: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {ours[key]: str(one) for key, one in columns.items() if key in ours and one and ours[key] != one}
    return {"format": format_name} | ({"columns": renamed} if renamed else {})


def _dataset(conversion: Conversion, key: str, value: Any) -> None:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return conversion.refuse(key, "it is a list of names, with commas")
    info = _info(conversion)
    found = [_source(conversion, info, name) for name in names]
    if (why := next((one for one in found if isinstance(one, str)), None)) is not None:
        return conversion.refuse(key, why)
    members = [one for one in found if isinstance(one, dict)]
    note = f"copy data/ of LLaMA-Factory's repository ({REPOSITORY}) to here" if info is IN_REPOSITORY else ""
    if key == "eval_dataset":
        return _eval(conversion, key, members, note)
    if len(members) == 1 and not conversion.get("eval_dataset"):
        member = {"train" if name == "path" else name: one for name, one in members[0].items()}
        return conversion.map(key, {f"data.{name}": one for name, one in member.items()}, note, look=bool(note))
    return conversion.map(key, {"data.train": members}, note, look=bool(note))


def _eval(conversion: Conversion, key: str, members: list[dict[str, Any]], note: str) -> None:
    if len(members) != 1:
        return conversion.refuse(key, "all evaluation rows are one set: put them into one file (data.eval)")
    member = {"eval" if name == "path" else name: one for name, one in members[0].items()}
    return conversion.map(key, {f"data.{name}": one for name, one in member.items()}, note, look=bool(note))


def _template(conversion: Conversion, key: str, value: Any) -> None:
    """The template by its name. Where all rows are plain text, none is used."""
    name = str(value)
    if conversion.get("stage") == "pt":
        return conversion.harmless(key, "plain text has no template")
    if name in NO_EQUAL:
        return conversion.refuse(key, f"'{name}' is LLaMA-Factory's own text: choose another (data.template)")
    if any(part in name for part in SEES):
        note = "the model's own template; it writes text rows as LLaMA-Factory does"
        return conversion.map(key, {"data.template": "tokenizer"}, note, look=True)
    note = "" if name in TEMPLATES else "LLaMA-Factory's is a copy of the model's own"
    return conversion.map(key, {"data.template": TEMPLATES.get(name, "tokenizer")}, note, look=bool(note))


def _packing(conversion: Conversion, key: str, value: Any) -> None:
    if conversion.get("stage") == "pt":
        return conversion.harmless(key, "pretrain joins all texts and cuts them into blocks")
    if value is not True:
        return conversion.harmless(key, "it is off")
    note = "" if key == "neat_packing" else "LLaMA-Factory lets packed rows see each other without neat_packing"
    return conversion.map(key, {"data.packing": True}, note, look=bool(note))


def _mix(conversion: Conversion, key: str, value: Any) -> None:
    if value == "concat":
        return conversion.harmless(key, "all rows of all sets are met")
    return conversion.refuse(key, "each set's weight says how often its rows are met: set it in data.train")


def _told(why: str) -> Function:
    return lambda conversion, key, value: conversion.harmless(key, why)


FUNCTIONS: dict[str, Function] = {
    "dataset": _dataset,
    "eval_dataset": _dataset,
    "dataset_dir": _told("it is in the paths of data.train"),
    "media_dir": lambda conversion, key, value: conversion.refuse(key, NOT_TEXT),
    "template": _template,
    "packing": _packing,
    "neat_packing": _packing,
    "mix_strategy": _mix,
    "image_max_pixels": _told("it is read where a row has an image"),
    "video_max_pixels": _told("it is read where a row has a video"),
}


def finish(conversion: Conversion, method: str) -> None:
    """Where no rows are named, or no template."""
    named = any(fate.key in ("dataset", "train_dataset") for fate in conversion.fates)
    if not named:
        conversion.refuse("dataset", "the file names no rows to train on: set data.train")
    if method != "pretrain" and conversion.at("data.template") is None:
        conversion.default("data.template", "tokenizer")
    if method != "sft" and conversion.at("data") is not None:
        conversion.tree["data"].pop("train_on_prompt", None)
