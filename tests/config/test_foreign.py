"""No key of another tool is a dead end, and none points where nothing is."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.config.foreign import (
    EVERYDAY,
    VALUES,
    WITHIN,
    answer,
    answers,
    axolotl,
    datasets,
    instead,
    llama_factory,
    trl,
)
from ftlib.config.loader import set_dotted
from ftlib.config.messages import _better_name, dotted_paths
from ftlib.errors import ConfigError

KNOWN = list(dotted_paths(Experiment))
TABLES = {"axolotl": axolotl, "llama_factory": llama_factory, "trl": trl, "datasets": datasets}


def names(tool: str) -> list[str]:
    lines = (Path(__file__).parent / "foreign" / f"{tool}.txt").read_text().splitlines()
    return " ".join(line for line in lines if not line.startswith("#")).split()


def keys(table: ModuleType) -> list[str]:
    lists = [*table.HARMLESS.values(), *table.ABSENT.values(), *table.REFUSED.values()]
    return [*table.OURS, *(key for listed in lists for key in listed.split())]


def is_answered(key: str) -> bool:
    """By a table, or because it has the same name here: then a person is led to it."""
    return answer(key) is not None or key in {path.rpartition(".")[2] for path in KNOWN}


@pytest.mark.parametrize(("tool", "least"), [("axolotl", 500), ("llama_factory", 290)])
def test_every_key_of_a_tool_is_answered(tool: str, least: int) -> None:
    assert len(names(tool)) > least
    assert [key for key in names(tool) if not is_answered(key)] == []


def test_every_field_of_trls_configs_is_answered() -> None:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from transformers import TrainingArguments
    from trl import DPOConfig, GRPOConfig, KTOConfig, ModelConfig, RewardConfig, RLOOConfig, ScriptArguments, SFTConfig
    from trl.experimental.cpo import CPOConfig
    from trl.experimental.orpo import ORPOConfig

    configs = (TrainingArguments, SFTConfig, DPOConfig, KTOConfig, RewardConfig, GRPOConfig, RLOOConfig)
    configs += (CPOConfig, ORPOConfig, ModelConfig, ScriptArguments)
    fields = {field.name for config in configs for field in dataclasses.fields(config)}
    assert len(fields) > 200
    assert sorted(field for field in fields if not is_answered(field)) == []


@pytest.mark.parametrize("tool", TABLES)
def test_a_key_stands_once_in_its_table(tool: str) -> None:
    assert [key for key, count in Counter(keys(TABLES[tool])).items() if count > 1] == []


def test_what_is_ours_is_there() -> None:
    ours = {key: found.text for key, found in answers().items() if found.kind == "ours"}
    elsewhere = ("a system turn in each row", "max_completion_tokens of a request")
    for key, text in ours.items():
        path = text.split(" ")[0].rstrip(":,")
        assert path in KNOWN or text.startswith(elsewhere), key
    assert len(ours) > 200
    for text in (*WITHIN.values(), *(f"data.train.{text}" for text in datasets.OURS.values() if "data." not in text)):
        assert text.split(" ")[0].rstrip(":") in KNOWN, text
    assert set(EVERYDAY) <= set(answers())


def test_a_value_of_another_tool_is_none_of_ours_and_leads_to_one() -> None:
    for path, values in VALUES.items():
        assert path in KNOWN
        for value, said in values.items():
            assert instead(path, value).strip().lower() == f"{said}.".lower()
            tree: dict[str, Any] = {
                "name": "x", "model": {"name_or_path": "m"}, "data": {"train": "d"}, "method": {"type": "sft"},
                "sweep": {"space": {"train.seed": [1]}},
            }  # fmt: skip
            set_dotted(tree, path, value)
            with pytest.raises(ConfigError) as raised:
                Experiment.parse(tree)
            assert instead(path, value) in str(raised.value)


def test_a_key_of_one_data_set_is_answered_where_it_stands() -> None:
    assert answer("type", "data.train") == answer("type", "data.replay") != answer("type", "train")
    tree: dict[str, Any] = {"name": "x", "model": {"name_or_path": "m"}, "method": {"type": "sft"}}
    for key, says in {
        "type": "no key 'data.train.0.type'. Here it is called format.",
        "ds_type": "Leave it out: the ending of a file says what it is.",
        "roles_to_train": "ftlib does not have it: every answer is trained on",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(says)):
            Experiment.parse({**tree, "data": {"train": [{"path": "x", key: "y"}]}})
    with pytest.raises(ConfigError, match="'data.path'. Here it is called data.train"):
        Experiment.parse({**tree, "data": {"train": "x", "path": "y"}})
    with pytest.raises(ConfigError, match="'train.type'. Known here: activation_checkpointing"):
        Experiment.parse({**tree, "data": {"train": "x"}, "train": {"type": "y"}})


def test_a_table_has_the_word_before_a_near_name() -> None:
    for key, found in answers().items():
        said = _better_name([key], Experiment)
        led = found.kind == "ours" and f"'{found.text}'" in said
        assert led or found.sentence in said or key in KNOWN, (key, said)
