"""`adapter:` and the keys of `train:` that go with it: what is allowed, and what is said of the rest."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from ftlib.config import AdapterSection, Experiment
from ftlib.errors import ConfigError

BASE: dict[str, Any] = {
    "name": "x",
    "model": {"name_or_path": "m"},
    "data": {"train": "d"},
    "method": {"type": "sft"},
}
TYPES = [get_args(section.model_fields["type"].annotation)[0] for section in get_args(get_args(AdapterSection)[0])]
NEEDED: dict[str, Any] = {"fusion": {"adapters": {"a": "an-adapter", "b": "another"}}}


def parsed(**parts: Any) -> Any:
    return Experiment.parse({**BASE, **parts})


@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_defaults_and_comes_back_from_yaml(name: str) -> None:
    adapter = parsed(adapter={"type": name, **NEEDED.get(name, {})}).adapter
    assert parsed(adapter=adapter.model_dump(mode="json")).adapter == adapter
    assert type(adapter).__doc__


def test_what_each_leaves() -> None:
    adapters = {name: parsed(adapter={"type": name, **NEEDED.get(name, {})}).adapter for name in TYPES}
    whole = {name for name, adapter in adapters.items() if adapter.saves == "model"}
    assert whole == {"bitfit", "layers"}
    lasting = {name for name, adapter in adapters.items() if not adapter.mergeable}
    assert lasting == {"bitfit", "layers", "prefix", "prompt", "p_tuning", "bottleneck", "fusion"}


@pytest.mark.parametrize("value", [True, False, "gaussian", "olora", "pissa", "pissa_niter_16", "corda", "eva", "mica"])
def test_initializations(value: Any) -> None:
    assert parsed(adapter={"type": "lora", "init_lora_weights": value}).adapter.init_lora_weights == value


REFUSED = [
    ({"type": "lroa"}, "adapter.type is 'lroa', .* Did you mean 'lora'"),
    ({"type": "lora", "init_lora_weights": "pisa"}, "adapter.init_lora_weights: 'pisa' is no initialization.*'pissa'"),
    ({"type": "lora", "init_lora_weights": "pissa_niter_x"}, "adapter.init_lora_weights: 'pissa_niter_x' is no init"),
    ({"type": "lora", "init_lora_weights": "orthogonal", "r": 3}, "needs an even r, but r is 3: use 4"),
    ({"type": "lora", "lora_fa": True, "lora_plus_ratio": 2}, "lora_fa freezes A.*drop one"),
    ({"type": "lora", "lora_fa": True, "use_dora": True}, "use_dora adds a third weight"),
    ({"type": "lora", "use_dora": True, "init_lora_weights": "pissa"}, "use_dora measures the base's weights"),
    ({"type": "lora", "rank_pattern": {"q_proj": 0}}, "adapter.rank_pattern.q_proj is 0"),
    ({"type": "adalora", "init_r": 4, "target_r": 4}, r"target_r \(4\) must be below init_r \(4\)"),
    ({"type": "ia3", "target_modules": ["k_proj"]}, "target_modules and feedforward_modules .* go together"),
    ({"type": "ia3", "target_modules": ["k"], "feedforward_modules": ["d"]}, "among target_modules, but d is not"),
    ({"type": "oft", "r": 4}, r"one of r \(4\) and oft_block_size \(32\) follows from the other: set it to 0"),
    ({"type": "boft", "boft_block_size": 0}, "set it to 0"),
    ({"type": "prompt", "prompt_tuning_init": "TEXT"}, "prompt_tuning_init_text .* go together"),
    ({"type": "layers", "num_layers": 0}, "adapter.num_layers is 0"),
]


@pytest.mark.parametrize(("adapter", "message"), REFUSED)
def test_what_does_not_fit_is_one_sentence(adapter: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parsed(adapter=adapter)
    assert len(str(caught.value).splitlines()) == 1


def test_early_stopping_needs_evaluations() -> None:
    with pytest.raises(ConfigError, match="early_stopping_patience has no effect while eval_strategy is 'end'"):
        parsed(train={"early_stopping_patience": 2, "eval_strategy": "end"})
