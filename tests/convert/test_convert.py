"""Every key gets its fate, nothing goes without a word, and a hostile file is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlib.config import Experiment
from ftlib.config.loader import parse_yaml
from ftlib.convert import Asked, axolotl, convert, llama_factory, llama_factory_v1, recognize, torchtune, trl
from ftlib.convert.written import text
from ftlib.errors import ConfigError, InputError
from tests.config.test_foreign import names
from tests.conftest import ftlib

AXOLOTL: dict[str, Any] = {
    "base_model": "org/model",
    "datasets": [{"path": "org/rows", "type": "chat_template"}],
    "sequence_len": 512,
    "micro_batch_size": 2,
    "learning_rate": 2e-4,
}


BOMB = "a: &a [1, 1, 1, 1]\n" + "".join(
    f"{one}: &{one} [*{two}, *{two}, *{two}, *{two}]\n" for one, two in zip("bcdefghij", "abcdefghi", strict=True)
)


def written(tmp_path: Path, source: dict[str, Any], name: str = "theirs.yaml") -> Path:
    file = tmp_path / name
    file.write_text(yaml.safe_dump(source, sort_keys=False))
    return file


def test_every_key_is_classed_in_a_comment(tmp_path: Path) -> None:
    source = AXOLOTL | {"gradient_checkpointing": True, "wandb_project": None, "liger_rope": True, "qat": {"a": 1}}
    source |= {"dataset_prepared_path": "x", "micro_batch_sice": 3, "lora_r": 8}
    conversion = convert(written(tmp_path, source))
    kinds = {fate.key: fate.kind for fate in conversion.fates}
    assert set(source) <= set(kinds)
    assert {kinds["micro_batch_sice"], kinds["qat"]} == {"refused"}
    assert {kinds[key] for key in ("wandb_project", "liger_rope", "dataset_prepared_path", "lora_r")} == {"harmless"}
    comments = [line.partition("#")[2] for line in text(conversion, "theirs.yaml").splitlines()]
    for key in source:
        assert any(key in comment for comment in comments), key
    said = {fate.key: fate.text for fate in conversion.fates}
    assert said["micro_batch_sice"] == "Axolotl has no such key. Did you mean 'micro_batch_size'?"


def test_what_is_written_is_read_back_as_the_same_experiment(tmp_path: Path) -> None:
    nasty = {"special_tokens": {"pad_token": "<|end # of: \n text|>"}, "a: b\n# c": "\x1b[31m\u202e x"}
    conversion = convert(written(tmp_path, AXOLOTL | nasty))
    said = text(conversion, "x\ny: 1.yaml")
    assert parse_yaml(said) == conversion.tree
    assert all(sign.isprintable() or sign == "\n" for sign in said)
    target = tmp_path / "ours.yaml"
    target.write_text(said)
    assert Experiment.load(target).model.special_tokens.pad_token == "<|end # of: \n text|>"
    assert max(map(len, said.splitlines())) <= 200


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BOMB, "its anchors and aliases expand to more than"),
        ("- base_model", "a configuration is a mapping of sections, but this is a list"),
        ("just a text", "but this is a str"),
        ("", "but this is empty"),
        ("a: [1", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("x" * 1_000_001, "larger than 1,000,000 bytes; a configuration is a page"),
        ("base_model: x\nbase_model: y", "the key 'base_model' stands twice"),
        ("[" * 3000, "not valid YAML"),
        ("what: 1\never: 2", "its keys (what, ever) are of none of axolotl, llama_factory, trl, torchtune, unsloth"),
        ("export_dir: x\nmodel_name_or_path: y", "this file trains nothing: it merges or quantizes a model"),
        ("sequence_len: 8", "this file trains nothing: it names no model"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_refused_in_a_sentence(content: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as raised:
        convert(file)
    assert says in str(raised.value)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


HOSTILE = [
    "x", -1, 1.5, True, [], {}, None, ["a", {"b": [1]}], {"a": {"b": "c"}}, "a\nb", 10**400, [None], [[1]], {1: 2},
    "1e999",
]  # fmt: skip


@pytest.mark.parametrize(
    "table", [axolotl.TABLE, llama_factory.TABLE, trl.TABLE, torchtune.TABLE], ids=lambda one: one.tool
)
def test_no_value_of_any_key_breaks_the_conversion(table: Any, tmp_path: Path) -> None:
    """A value of any shape is mapped or refused; at the end ftlib's own schema says what it thinks of it."""
    tool = {"Axolotl": "axolotl", "LLaMA-Factory": "llama_factory", "TRL": "trl", "torchtune": "torchtune"}[table.tool]
    base = {"base_model": "m", "model_name_or_path": "m", "checkpointer": {"checkpoint_dir": "m"}, "use_peft": True,
            "adapter": "lora", "rl": "grpo", "stage": "dpo", "dataset_name": "x"}  # fmt: skip
    base = {key: value for key, value in base.items() if key in table.known}
    elsewhere = {
        "train_dataset",
        "peft_config",
        *(key for telling, _ in recognize.OTHER_FILES.values() for key in telling),
    }
    for number, value in enumerate(HOSTILE):
        source = base | dict.fromkeys(sorted(table.known - set(base) - elsewhere), value)
        conversion = convert(written(tmp_path, source, f"{tool}{number}.yaml"), tool, Asked(gpus=2))
        assert {key for key in source if key not in {fate.key for fate in conversion.fates}} == set(), value
        assert parse_yaml(text(conversion, "x")) is not None


@pytest.mark.parametrize(("table", "tool"), [(axolotl.TABLE, "axolotl"), (llama_factory.TABLE, "llama_factory")])
def test_every_key_of_a_tool_is_known_to_its_table(table: Any, tool: str) -> None:
    newer = llama_factory_v1.TABLE.known if tool == "llama_factory" else set()
    assert sorted(set(names(tool)) - table.known - newer) == []


def test_a_tool_is_recognized_by_its_keys() -> None:
    assert recognize.recognize({"base_model": "x"}) == "axolotl"
    assert recognize.recognize({"model_name_or_path": "x", "stage": "sft", "dataset": "y"}) == "llama_factory"
    assert recognize.recognize({"model_name_or_path": "x", "dataset_name": "y", "learning_rate": 1}) == "trl"
    assert recognize.recognize({"model": {"_component_": "torchtune.models.x"}}) == "torchtune"
    assert recognize.recognize({"model_name_or_path": "x"}) is None


def test_the_command_writes_and_exits_by_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, AXOLOTL)
    status, said = ftlib("convert", file)
    assert (status, (tmp_path / "theirs.ftlib.yaml").is_file()) == (0, True)
    assert "wrote theirs.ftlib.yaml; next:\n  ftlib check theirs.ftlib.yaml" in said
    assert ftlib("convert", file)[0] == 2  # it is there already
    other = written(tmp_path, AXOLOTL | {"qat": {"a": 1}}, "other.yaml")
    status, said = ftlib("convert", other, "-o", "x.yaml")
    assert status == 2
    assert "refused:    qat:" in said
    assert "other.yaml: 1 keys are refused, and x.yaml is without them" in said
    assert ftlib("convert", other, "-o", "x.yaml", "--force", "--accept-refused")[0] == 0
    assert Experiment.load("x.yaml").model.name_or_path == "org/model"


def test_a_deepspeed_file_is_read_where_it_is(tmp_path: Path) -> None:
    content = {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}, "overlap_comm": True}}
    (tmp_path / "ds.json").write_text(json.dumps(content))
    conversion = convert(written(tmp_path, AXOLOTL | {"deepspeed": "ds.json"}), asked=Asked(gpus=4))
    scale = conversion.tree["scale"]
    assert (scale["strategy"], scale["stage"], scale["offload"], scale["num_workers"]) == ("deepspeed", 3, "cpu", 4)
    named = convert(written(tmp_path, AXOLOTL | {"deepspeed": "deepspeed_configs/zero2.json"}), asked=Asked(gpus=4))
    assert named.at("scale.stage") == 2
    (tmp_path / "ds.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="no readable JSON"):
        convert(written(tmp_path, AXOLOTL | {"deepspeed": "ds.json"}))
