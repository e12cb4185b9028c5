"""Broken experiment files and data files: each gives exit 2 and one helpful message, and starts nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlib.config.loader import set_dotted
from tests.conftest import ftlib, rows, write_jsonl

GOOD = rows(6)

# What is written into the experiment file, and what the message must say.
FILES: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", ["is empty"]),
    "a list": ("- name: x\n", ["an experiment is a mapping of sections"]),
    "a tab": ("name:\tx\n\tmodel: y\n", ["line", "not valid YAML"]),
    "an open bracket": ("data: {train: [x\n", ["line 2", "not valid YAML"]),
    "a duplicate key": ("name: a\nmodel: {}\nname: b\n", ["line 3", "'name' stands twice"]),
    "a python tag": ("name: !!python/name:os.system\n", ["not valid YAML"]),
    "an anchor bomb": (
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)),
        ["anchors and aliases expand"],
    ),
    "bytes": (b"\xff\xfe\x00", ["not UTF-8"]),
    "nothing but a name": ("name: x\n", ["model is missing", "data is missing", "method is missing"]),
}

# A key of a good experiment, its broken value, and what the message must say.
KEYS: list[tuple[str, Any, list[str]]] = [
    ("train.learning_rat", 1e-4, ["train.learning_rat", "Did you mean 'learning_rate'?"]),
    ("lora_r", 8, ["Here it is called adapter.r"]),
    ("cutoff_len", 512, ["Here it is called data.max_length"]),
    ("micro_batch_size", 2, ["Here it is called train.per_device_train_batch_size"]),
    ("finetuning_type", "lora", ["Here it is called adapter.type"]),
    ("method.type", "sfft", ["must be one of: sft, pretrain", "Did you mean 'sft'?"]),
    ("adapter.r", -4, ["adapter.r is -4", "greater than or equal to 1"]),
    ("train.learning_rate", "fast", ["train.learning_rate is 'fast'", "must be a number"]),
    ("data.format", "alpacca", ["must be one of: auto, alpaca", "Did you mean 'alpaca'?"]),
    ("scale", {"strategy": "zero3"}, ["scale.strategy is 'zero3'", "single, ddp"]),
    ("sweep", {"space": {"adapter.rnk": [4]}}, ["there is no key 'adapter.rnk'"]),
    ("sweep", {"space": {"adapter.r": [4, "many"]}}, ["sweep.space.adapter.r", "'many' is not possible"]),
    ("sweep", {"space": {"train.learning_rate": {"min": 1, "max": 0.1}}}, ["min (1) must be below max (0.1)"]),
    (
        "sweep",
        {"space": {"train.learning_rate": {"min": 0.1, "max": 1}}, "search": {"type": "grid"}},
        ["search 'grid' needs lists"],
    ),
    ("model.name_or_path", "/no/such/model", ["model.name_or_path", "/no/such/model"]),
    ("model.config", {"hidden_sise": 3}, ["model.config.hidden_sise", "Did you mean 'hidden_size'?"]),
    ("adapter.target_modules", ["q_prj"], ["adapter.target_modules", "Linear layers here: down_proj"]),
    ("train.optim", "adamw_torhc", ["train.optim is 'adamw_torhc'", "Did you mean 'adamw_torch'?"]),
    ("data.train", "/no/such/rows.jsonl", ["data.train", "/no/such/rows.jsonl"]),
    ("data.columns", {"prompt": "question"}, ["question"]),
    ("track.wandb", {"mode": "online"}, ["there is no key", "set WANDB_API_KEY"]),
]

# What is written into the data file (with its suffix), and what the message must say: file, line, reason.
DATA: dict[str, tuple[str, str | bytes, list[str]]] = {
    "no rows": (".jsonl", "", ["rows.jsonl"]),
    "no JSON": (".jsonl", json.dumps(GOOD[0]) + "\n{'prompt': 1}\n", ["rows.jsonl:2", "data.on_bad_row: skip"]),
    "an empty completion": (".jsonl", [*GOOD[:3], {**GOOD[3], "completion": ""}], ["rows.jsonl:4", "completion"]),
    "a number for a prompt": (".jsonl", [*GOOD, {**GOOD[3], "prompt": 5}], ["rows.jsonl:7", "prompt"]),
    "columns of no format": (".jsonl", [{"foo": "a", "bar": "b"}], ["rows.jsonl", "foo", "alpaca"]),
    "preference rows for sft": (
        ".jsonl",
        [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 4,
        ["preference", "method.type: dpo"],
    ),
    "an unknown role": (
        ".jsonl",
        [{"messages": [{"role": "usr", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 3,
        ["rows.jsonl:1", "usr"],
    ),
    "a JSON that is no list": (".json", '"rows"', ["rows.json"]),
    "a CSV with a short line": (".csv", "prompt,completion\na,b\nc\n", ["rows.csv:3"]),
    "no parquet": (".parquet", b"PAR1 not really", ["rows.parquet"]),
    "an unknown ending": (".xlsx", b"PK", [".xlsx", ".jsonl"]),
    "latin-1": (".jsonl", '{"prompt": "é", "completion": "x"}'.encode("latin-1"), ["rows.jsonl"]),
    "one row": (".jsonl", GOOD[:1], ["at least 2"]),
    "rows longer than max_length": (
        ".jsonl",
        [{"prompt": "word " * 300, "completion": "x"}] * 4,
        ["data.max_length"],
    ),
}


def refused(path: Path, says: list[str]) -> None:
    status, output = ftlib("sweep" if "sweep:" in path.read_text(errors="ignore") else "train", path)
    assert status == 2, output
    for words in says:
        assert words in output
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) <= 4, output
    assert not list(path.parent.glob("runs/*"))


def write(content: Any, path: Path) -> Path:
    if isinstance(content, list):
        return write_jsonl(path, content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", FILES)
def test_experiment_files(name: str, tmp_path: Path) -> None:
    content, says = FILES[name]
    refused(write(content, tmp_path / "x.yaml"), says)


@pytest.mark.parametrize(("path", "value", "says"), KEYS, ids=lambda argument: str(argument)[:40])
def test_keys(path: str, value: Any, says: list[str], tree: dict[str, Any], tmp_path: Path) -> None:
    set_dotted(tree, path, value)
    refused(write(yaml.safe_dump(tree), tmp_path / "x.yaml"), says)


@pytest.mark.parametrize("name", DATA)
def test_data_files(name: str, tree: dict[str, Any], tmp_path: Path) -> None:
    suffix, content, says = DATA[name]
    tree["data"] = {"train": str(write(content, tmp_path / f"rows{suffix}")), "max_length": 64}
    refused(write(yaml.safe_dump(tree), tmp_path / "x.yaml"), says)


def test_a_missing_file(tmp_path: Path) -> None:
    status, output = ftlib("sweep", tmp_path / "nothing.yaml")
    assert (status, "no such file" in output) == (2, True)


def test_skipped_rows_are_counted_and_named(tree: dict[str, Any], tmp_path: Path) -> None:
    bad = [*rows(20), {"prompt": "", "completion": "x"}]
    tree["data"] = {"train": str(write_jsonl(tmp_path / "rows.jsonl", bad)), "on_bad_row": "skip"}
    status, output = ftlib("check", write(yaml.safe_dump(tree), tmp_path / "x.yaml"))
    assert status == 0, output
    assert "rows.jsonl:21" in output
