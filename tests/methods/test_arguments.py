"""What `train:` asks of transformers, and what is said before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers.training_args import OptimizerNames

from ftlib.config import Experiment
from ftlib.errors import ConfigError
from ftlib.methods.arguments import check_arguments, package_of, training_arguments


def checked(tree: dict[str, Any], adapter: Any = None, **train: Any) -> None:
    tree["adapter"] = adapter
    tree["train"] |= train
    check_arguments(Experiment.parse(tree))


@pytest.mark.parametrize(
    ("optim", "package"),
    [
        ("adamw_torch", None),
        ("adafactor", None),
        ("adamw_torch_fused", None),
        ("galore_adamw_8bit", "galore_torch"),
        ("apollo_adamw_layerwise", "apollo_torch"),
        ("schedule_free_sgd", "schedulefree"),
        ("stable_adamw", "optimi"),
        ("adamw_torch_8bit", "torchao"),
        ("adamw_8bit", "bitsandbytes"),
        ("paged_lion_32bit", "bitsandbytes"),
        ("rmsprop_bnb", "bitsandbytes"),
        ("ademamix", "bitsandbytes"),
    ],
)
def test_where_an_optimizer_comes_from(optim: str, package: str | None) -> None:
    assert package_of(optim) == package


@pytest.mark.parametrize("optim", [str(optimizer.value) for optimizer in OptimizerNames])
def test_every_optimizer_is_either_there_or_named_with_its_package(
    optim: str, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if package_of(optim) is None:
        checked(tree, optim=optim)
        return
    with pytest.raises(ConfigError, match=f"train.optim '{optim}' needs the package {package_of(optim)}: pip install"):
        checked(tree, optim=optim)


REFUSED = [
    ({"optim": "adamw_toch"}, None, "Did you mean 'adamw_torch'"),
    ({"optim": "galore_adamw"}, None, "'galore_adamw' needs it: for example all-linear"),
    ({"optim_target_modules": "all-linear"}, None, "'adamw_torch' has no use for it: drop it"),
    (
        {"optim": "galore_adamw", "optim_target_modules": "all-linear"},
        {"type": "lora"},
        "whole matrices.*adapter: null",
    ),
    ({"optim": "sgd"}, {"type": "lora", "lora_plus_ratio": 4}, "adapter.lora_plus_ratio brings an AdamW of its own"),
    ({"optim": "sgd"}, {"type": "lora", "lora_fa": True}, "adapter.lora_fa brings an AdamW of its own"),
    ({"optim": "adalomo"}, None, "'adalomo' needs a GPU: use train.optim: lomo"),
    (
        {"optim": "apollo_adamw_layerwise", "optim_target_modules": "all-linear", "gradient_accumulation_steps": 2},
        None,
        "use train.optim: apollo_adamw with several",
    ),
]


@pytest.mark.parametrize(("train", "adapter", "message"), REFUSED)
def test_what_cannot_train_is_said_before(
    train: dict[str, Any], adapter: Any, message: str, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=message):
        checked(tree, adapter, **train)


def test_keys_reach_transformers(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["adapter"] = None
    tree["train"] |= {"neftune_noise_alpha": 5.0, "optim": "rmsprop", "optim_args": "momentum=0.5"}
    tree["train"]["dataloader_num_workers"] = 2
    arguments = training_arguments(Experiment.parse(tree), tmp_path)
    assert (arguments["dataloader_num_workers"], arguments["tf32"]) == (2, None)
    assert (arguments["neftune_noise_alpha"], arguments["optim_args"]) == (5.0, "momentum=0.5")
