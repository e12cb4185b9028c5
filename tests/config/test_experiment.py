from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.errors import ConfigError

SPACE = {
    "adapter.r": [4, 8],
    "adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 2]},
    "train.learning_rate": {"min": 1e-5, "max": 1e-3, "log": True},
}


def test_overrides_and_defaults(tree: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(tree))
    experiment = Experiment.load(path, ["train.learning_rate=5e-5", "adapter.r=2", "track.wandb.mode=offline"])
    assert experiment.train.learning_rate == 5e-5
    assert experiment.adapter is not None
    assert experiment.adapter.r == 2
    assert experiment.track.wandb is not None
    assert experiment.train.weight_decay == 0.0
    assert Experiment.parse(experiment.to_dict()) == experiment  # the resolved file is an experiment itself


@pytest.mark.parametrize(
    ("written", "read"),
    [("{0: 1, 1: 3}", {"0": 1, "1": 3}), ("{true: 1, false: 0.5}", {"true": 1, "false": 0.5}),
     ("{1.0: 2, a: 1}", {"1": 2, "a": 1}), ("balanced", "balanced")],
)  # fmt: skip
def test_class_weights_are_by_label_as_it_prints(tree: dict[str, Any], written: str, read: Any) -> None:
    import yaml

    tree["method"], tree["adapter"] = {"type": "classify", "class_weights": yaml.safe_load(written)}, None
    experiment = Experiment.parse(tree)
    assert experiment.method.class_weights == read
    assert Experiment.parse(experiment.to_dict()) == experiment


def test_a_point_of_the_space(tree: dict[str, Any]) -> None:
    experiment = Experiment.parse({**tree, "sweep": {"space": SPACE}})
    params = experiment.resolve_ratios({"adapter.r": 8, "adapter.lora_alpha": 2, "train.learning_rate": 1e-4})
    assert params == {"adapter.r": 8, "adapter.lora_alpha": 16, "train.learning_rate": 1e-4}
    point = experiment.at(params)
    assert point.adapter is not None
    assert (point.adapter.r, point.adapter.lora_alpha, point.train.learning_rate) == (8, 16, 1e-4)
    assert point.sweep is None
    assert experiment.adapter is not None
    assert experiment.adapter.r == 4  # frozen


def test_a_ratio_of_a_key_outside_the_space(tree: dict[str, Any]) -> None:
    space = {"adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 2]}}
    experiment = Experiment.parse({**tree, "sweep": {"space": space}})
    assert experiment.resolve_ratios({"adapter.lora_alpha": 2}) == {"adapter.lora_alpha": 8}


def test_whole_numbers_are_told_from_others(tree: dict[str, Any]) -> None:
    experiment = Experiment.parse(tree)
    assert experiment.is_integer("adapter.r")
    assert experiment.is_integer("train.max_steps")
    assert not experiment.is_integer("train.learning_rate")
    assert not experiment.is_integer("train.num_train_epochs")


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"adapter.rank": [4]}, "Here it is called adapter.r"),
        ({"adapter.r": [4, 0]}, "adapter.r is 0, but must be greater than"),
        ({"adapter.r": {"min": 1.5, "max": 8}}, "is a whole number"),
        ({"adapter.r": {"min": 0, "max": 8}}, "the value 0 is not possible"),
        ({"train.learning_rate": {"min": 0.0, "max": 1.0}}, "the value 0.0 is not possible"),
        ({"train.learning_rate": {"min": 0.0, "max": 1.0, "log": True}}, "min must be above 0"),
        ({"adapter.lora_alpha": {"ratio_of": "adapter.q", "choices": [1]}}, "there is no key 'adapter.q'"),
        ({"sweep.num_samples": [1]}, "the same for every trial"),
        ({"train": [1]}, "train"),
        ({"model.name_or_path": [1]}, "must be text"),
    ],
)
def test_a_point_that_cannot_run_is_named_before_it_costs(tree: dict[str, Any], space: Any, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Experiment.parse({**tree, "sweep": {"space": space}})
    assert says in str(raised.value)
    assert "sweep.space" in str(raised.value)


def test_paths_are_anchored_and_hub_names_left(tree: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}")
    tree = {**tree, "data": {"train": "rows.jsonl"}, "model": {"name_or_path": "Qwen/Qwen3-0.6B"}, "storage": "runs"}
    experiment = Experiment.parse(tree).anchored()
    assert experiment.data.train == str(tmp_path / "rows.jsonl")
    assert experiment.model.name_or_path == "Qwen/Qwen3-0.6B"
    assert experiment.storage == str(tmp_path / "runs")
    listed = {"train": ["rows.jsonl", {"path": "some/dataset", "weight": 2}], "eval_split": 0.5}
    several = Experiment.parse({**tree, "data": listed}).anchored().data.sources
    assert [(key, weight, section.train) for key, weight, section in several] == [
        ("train[0].path", 1.0, str(tmp_path / "rows.jsonl")),
        ("train[1].path", 2.0, "some/dataset"),
    ]
