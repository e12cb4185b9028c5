"""The schema that editors read takes what ftlib takes, and tells what each key is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ftlib.config import Experiment
from ftlib.config.loader import parse_yaml, set_dotted
from ftlib.config.schema import descriptions, json_schema, sections

SCHEMA = jsonschema.Draft7Validator(json_schema())
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILES = [path for path in sorted(EXPERIMENTS.rglob("*.yaml")) if "pipelines" not in path.parts]  # recipes among them


def test_every_key_is_described_in_plain_language() -> None:
    found = {f"{section.__name__}.{name}": section for section in sections(Experiment) for name in section.model_fields}
    assert len(found) > 200
    for section in sections(Experiment):
        missing = section.model_fields.keys() - descriptions(section).keys()
        assert not missing, f"{section.__name__}: write a line of text under {sorted(missing)}"
        for name, text in descriptions(section).items():
            assert 8 < len(text) < 300, f"{section.__name__}.{name}"
            assert text.endswith("."), f"{section.__name__}.{name}"


def test_descriptions_reach_the_schema() -> None:
    defined = json_schema()["$defs"]
    assert defined["Lora"]["properties"]["r"]["description"].startswith("The rank")
    assert defined["GRPO"]["properties"]["rewards"]["description"].startswith("The functions that score")
    assert json_schema()["properties"]["storage"]["description"].startswith("Where runs are kept")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_schema_takes_every_experiment(path: Path) -> None:
    assert [error.message for error in SCHEMA.iter_errors(parse_yaml(path.read_text()))] == []


@pytest.mark.parametrize(
    ("key", "value", "taken"),
    [
        ("train.learning_rate", 1e-4, True),
        ("train.learning_rat", 1e-4, False),
        ("train.learning_rate", -1, False),
        ("data.train", ["a.jsonl", {"path": "b.jsonl", "weight": 2}], True),
        ("data.train", [{"path": "b.jsonl", "wieght": 2}], False),
        ("data.template", "lama3", False),
        ("method", {"type": "dpo", "loss_type": "ipo"}, True),
        ("method", {"type": "grpo", "rewards": ["length"]}, True),
        ("method", {"type": "dop"}, False),
        ("scale", {"strategy": "deepspeed", "deepspeed": "zero3.json"}, True),
        ("sweep", {"space": {"train.learning_rate": [1, 2]}, "pack": False}, True),
        ("sweep", {"space": {"train.learning_rate": 1}}, False),
    ],
)
def test_what_the_schema_takes(key: str, value: Any, taken: bool) -> None:
    tree: dict[str, Any] = {
        "name": "x", "model": {"name_or_path": "m"}, "data": {"train": "d"}, "method": {"type": "sft"}
    }  # fmt: skip
    set_dotted(tree, key, value)
    assert SCHEMA.is_valid(tree) == taken


def test_an_editor_completes_the_keys_of_a_space() -> None:
    space = json_schema()["$defs"]["SweepSection"]["properties"]["space"]["properties"]
    assert {"train.learning_rate", "adapter.r", "method.beta"} <= space.keys()
    assert not any(path.startswith(("scale.", "sweep.", "storage")) for path in space)
