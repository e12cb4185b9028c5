"""Conditional spaces: a choice among mappings, each with keys of its own."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.errors import ConfigError

TREE: dict[str, Any] = {
    "name": "x",
    "model": {"name_or_path": "m"},
    "data": {"train": "d", "eval": "e"},
    "method": {"type": "sft"},
    "adapter": {"type": "lora", "r": 4, "lora_alpha": 8},
}
ADAPTERS: list[Any] = [
    {"type": "lora", "r": [8, 16], "lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 2]}, "use_rslora": True},
    {"type": "ia3", "train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True}},
    {"type": "prefix", "num_virtual_tokens": {"min": 4, "max": 16}},
    None,
]


def experiment(space: dict[str, Any], **sweep: Any) -> Experiment:
    return Experiment.parse({**TREE, "sweep": {"space": space, **sweep}})


def test_each_variant_has_keys_of_its_own() -> None:
    found = experiment({"adapter": ADAPTERS, "train.seed": [1, 2]})
    assert found.sweep is not None
    names = [leaf.name for leaf in found.sweep.leaves]
    assert names[:3] == ["adapter", "adapter.lora.r", "adapter.lora.lora_alpha"]
    assert found.sweep.paths[0] == "adapter.r"
    lora = found.resolve_ratios({"adapter": "lora", "adapter.lora.r": 16, "adapter.lora.lora_alpha": 2})
    assert lora == {"adapter.type": "lora", "adapter.r": 16, "adapter.lora_alpha": 32, "adapter.use_rslora": True}
    ia3 = found.resolve_ratios({"adapter": "ia3", "adapter.ia3.train.learning_rate": 1e-2, "train.seed": 2})
    assert ia3 == {"adapter.type": "ia3", "train.learning_rate": 1e-2, "train.seed": 2}
    assert found.at(ia3).adapter.type == "ia3"  # type: ignore[union-attr]
    assert found.at(found.resolve_ratios({"adapter": "none"})).adapter is None
    assert found.is_integer("adapter.prefix.num_virtual_tokens")
    again = Experiment.parse(found.to_dict())  # as a run keeps it
    assert again.sweep is not None
    assert again.sweep.leaves == found.sweep.leaves


def test_a_grid_has_the_points_of_each_variant() -> None:
    found = experiment({"adapter": [ADAPTERS[0], {"type": "ia3"}], "train.seed": [1, 2]}, search={"type": "grid"})
    assert found.sweep is not None
    points = found.sweep.grid_points()
    assert len(points) == found.number_of_trials == (2 * 2 + 1) * 2
    assert {"adapter": "ia3", "train.seed": 1} in points


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"adapter": [{"type": "lora", "rank": [4]}, None]}, r"space.adapter.lora: .*adapter.rank"),
        ({"adapter": [{"type": "ia3", "r": 4}, None]}, r"space.adapter.ia3: .*adapter.r"),
        ({"adapter": [{"type": "lora", "scale.num_workers": [1, 2]}, None]}, "'scale.num_workers' is the same for"),
        ({"adapter": [{"type": "lora", "r": {"min": 8, "max": 4}}, None]}, "must be below max"),
        ({"model": [{"name_or_path": "a"}, {"name_or_path": "b"}]}, "use a metric of texts"),
        ({"model.name_or_path": ["a", "b"]}, "use a metric of texts .eval_bits_per_byte"),
    ],
)
def test_what_a_variant_cannot_have_is_named(space: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        experiment(space)


def test_bases_are_compared_by_a_metric_of_texts() -> None:
    space = {"model": [{"name_or_path": "a"}, {"name_or_path": "b", "dtype": "bfloat16"}], "data.train": ["d", "f"]}
    found = experiment(space, metric="eval_bits_per_byte")
    assert found.at(found.resolve_ratios({"model": "1", "data.train": "f"})).model.dtype == "bfloat16"
    moved = found.with_paths(lambda key, value: f"/{value}" if key == "data.train" else value)
    assert moved.sweep is not None
    assert moved.sweep.space["data.train"].choices == ["/d", "/f"]  # type: ignore[union-attr]
    moved = found.with_paths(lambda key, value: f"/{value}" if key == "model.name_or_path" else value)
    assert moved.at(moved.resolve_ratios({"model": "1"})).model.name_or_path == "/b"
