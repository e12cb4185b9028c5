"""torchtune's data sets: builders by their names, and the text by which each writes a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.convert.conversion import Conversion, Function

# Builders that read one data set on the Hub.
ALPACA = {"alpaca_dataset": "tatsu-lab/alpaca", "alpaca_cleaned_dataset": "yahma/alpaca-cleaned"}
WRITES = ("it writes each row by a text of its own ({}) inside a turn of the model's template: write such turns "
          "as messages, and name that file in data.train")  # fmt: skip
NOT_TEXT = "ftlib trains on text"
STYLES = {"sharegpt": ("sharegpt", "conversations"), "openai": ("messages", "messages")}


def _kind(value: Any) -> str:
    return str(value.get("_component_", "")).rpartition(".")[2] if isinstance(value, Mapping) else ""


def _source(value: Mapping[str, Any]) -> dict[str, Any]:
    """Where the rows are: a data set on the Hub, or a file here."""
    files = value.get("data_files")
    file = files[0] if isinstance(files, list) and files else files
    found = {"path": str(file or value.get("source") or ALPACA.get(_kind(value), ""))}
    split = value.get("split", "train")
    hub = {"hub_config": value.get("subset") or value.get("name"), "hub_split": split if split != "train" else None}
    return found | ({} if file else {name: one for name, one in hub.items() if one})


def _format(value: Mapping[str, Any]) -> dict[str, Any] | str:
    """The format and columns; a reason as text where the rows are written by another text."""
    kind, columns = _kind(value), value.get("column_map")
    columns = columns if isinstance(columns, Mapping) else {}
    if kind in ALPACA:
        return WRITES.format("Alpaca's prompt")
    if kind == "chat_dataset":
        name, column = STYLES.get(str(value.get("conversation_style")), ("messages", "messages"))
        theirs = str(value.get("conversation_column", column))
        return {"format": name} | ({"columns": {column: theirs}} if theirs != column else {})
    if kind == "instruct_dataset":
        renamed = {"prompt": str(columns.get("input", "input")), "completion": str(columns.get("output", "output"))}
        return {"format": "prompt_completion", "columns": renamed}
    if kind == "text_completion_dataset":
        column = str(value.get("column", "text"))
        return {"format": "text"} | ({"columns": {"text": column}} if column != "text" else {})
    if kind == "preference_dataset":
        renamed = {key: str(columns[key]) for key in ("chosen", "rejected") if columns.get(key, key) != key}
        return {"format": "preference"} | ({"columns": renamed} if renamed else {})
    return NOT_TEXT if "multimodal" in str(value.get("_component_")) else WRITES.format(kind)


def _dataset(conversion: Conversion, key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        return conversion.refuse(key, "it is a builder with its arguments")
    found, said = _source(value), _format(value)
    member = found | (said if isinstance(said, dict) else {})
    if isinstance(said, str):
        conversion.refuse(key, said)
    if not found["path"]:
        return None
    if conversion.get("dataset_val"):
        conversion.map(key, {"data.train": [member]})
    else:
        single = {"train" if name == "path" else name: one for name, one in member.items()}
        conversion.map(key, {f"data.{name}": one for name, one in single.items()})
    _loss_and_packing(conversion, key, value)
    return None


def _loss_and_packing(conversion: Conversion, key: str, value: Mapping[str, Any]) -> None:
    kind = _kind(value)
    if kind in ALPACA or kind in ("chat_dataset", "instruct_dataset"):
        conversion.put(
            "data.train_on_prompt", bool(value.get("train_on_input", kind in ALPACA)), f"{key}.train_on_input"
        )
    if value.get("packed"):
        conversion.put("data.packing", True, f"{key}.packed")
    if kind != "text_completion_dataset":
        conversion.put("data.template", "tokenizer", f"{key}: the model's own, as torchtune's tokenizer writes it")


def _eval(conversion: Conversion, key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        return conversion.refuse(key, "it is a builder with its arguments")
    found, said = _source(value), _format(value)
    member = {"eval" if name == "path" else name: one for name, one in found.items()}
    member |= said if isinstance(said, dict) else {}
    steps = conversion.get("run_val_every_n_steps")
    settings = {f"data.{name}": one for name, one in member.items()}
    when = {"train.eval_strategy": "steps", "train.eval_steps": steps} if isinstance(steps, int) else {}
    return conversion.map(key, settings | when)


def _of_eval(conversion: Conversion, key: str, value: Any) -> None:
    if not conversion.get("dataset_val"):
        return conversion.harmless(key, "nothing is evaluated")
    if key == "batch_size_val":
        return conversion.map(key, {"train.per_device_eval_batch_size": value})
    return conversion.map(key, {}, "it is train.eval_steps")


FUNCTIONS: dict[str, Function] = {
    "dataset": _dataset,
    "dataset_val": _eval,
    "batch_size_val": _of_eval,
    "run_val_every_n_steps": _of_eval,
}


def finish(conversion: Conversion) -> None:
    """No rows are held out of those that are trained on."""
    if conversion.at("data.eval") is None:
        conversion.default("data.eval_split", 0)
    if conversion.at("method.type") == "distill" and conversion.at("data.eval") is None:
        held = "what a student keeps of its teacher is measured on a tenth of the rows, which is not trained on"
        conversion.put("data.eval_split", 0.1, held)
        conversion.map("teacher_checkpointer", {}, held, look=True)
    if conversion.at("data.train") is None and not any(fate.key == "dataset" for fate in conversion.refused):
        conversion.refuse("dataset", "the file names no rows to train on: set data.train")
