"""AdapterFusion (Pfeiffer et al. 2021, arXiv:2005.00247) over finished bottleneck adapters, as a tuner of PEFT.

Where the adapters stand after a layer, each position attends to what they would add there: the layer's output is the
query, what each adapter adds is a key and a value, and the output gets the values, weighed by a softmax over adapters.
Query, key and value are trained, the adapters are not. Value begins as the identity (and 1e-6 beside the diagonal, as
in AdapterHub), and query and key at random, so a fresh fusion adds about the mean of its adapters.

The file of a fusion holds its adapters, so it needs nothing but its base. Importing this module registers the tuner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import register_peft_method
from safetensors.torch import load_file
from torch import Tensor, nn

from ftlib.errors import ConfigError
from ftlib.models.adapter_files import adapter_config, check_tensors
from ftlib.models.adapters.bottleneck import FUNCTIONS, BottleneckModel
from ftlib.models.adapters.bottleneck import NAME as BOTTLENECK
from ftlib.models.adapters.own_config import OwnConfig, peft_type
from ftlib.models.adapters.state import PEFT_CONFIG, PEFT_WEIGHTS

NAME = "FUSION"
BESIDE = 1e-6  # beside the diagonal of value, at first


@dataclass
class FusionConfig(OwnConfig):
    """`adapter_config.json` of a fusion: the names of its adapters, and the size and function of each."""

    name = NAME

    adapters: list[str] = field(default_factory=list)
    bottleneck_sizes: list[int] = field(default_factory=list)
    non_linearities: list[str] = field(default_factory=list)


class FusionLayer(nn.Module, BaseTunerLayer):
    """A linear layer, plain or quantized, with finished bottlenecks and the attention over them after it."""

    adapter_layer_names = ("fusion_query", "fusion_key", "fusion_value")
    other_param_names = ("fusion_down", "fusion_up")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: FusionConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        for name in (*self.adapter_layer_names, *self.other_param_names):
            setattr(self, name, nn.ModuleDict())
        self.functions: dict[str, list[nn.Module]] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: FusionConfig) -> None:
        """Adds the weights of one more fusion."""
        base: Any = self.get_base_layer()
        width = int(base.out_features if hasattr(base, "out_features") else base.nf)  # GPT-2's Conv1D has the second
        for name in ("fusion_query", "fusion_key"):
            getattr(self, name)[adapter_name] = nn.Linear(width, width)
        value = nn.Linear(width, width, bias=False)
        with torch.no_grad():
            value.weight.fill_(BESIDE).fill_diagonal_(1.0)
        self.fusion_value[adapter_name] = value
        downs = [nn.Linear(width, size) for size in config.bottleneck_sizes]
        ups = [nn.Linear(size, width) for size in config.bottleneck_sizes]
        self.fusion_down[adapter_name], self.fusion_up[adapter_name] = nn.ModuleList(downs), nn.ModuleList(ups)
        self.functions[adapter_name] = [FUNCTIONS[name]() for name in config.non_linearities]
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)
        for part in (*downs, *ups):
            part.requires_grad_(False)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Raises: which adapter counts depends on the input."""
        raise ValueError("a fusion weighs its adapters anew at each token, so no matrix of the base can hold it.")

    def unmerge(self) -> None:
        """There is never anything to undo."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.fusion_query:
                result = result + self._fused(name, result).to(result.dtype)
        return result

    def _fused(self, name: str, output: Tensor) -> Tensor:
        """What is added to the layer's output [..., d]; adapters lie in the dimension before the last."""
        hidden = output.to(self.fusion_query[name].weight.dtype)
        bottlenecks = zip(self.fusion_down[name], self.functions[name], self.fusion_up[name], strict=True)
        added = torch.stack([up(function(down(hidden))) for down, function, up in bottlenecks], dim=-2)
        query, keys = self.fusion_query[name](hidden), self.fusion_key[name](added)
        shares = (query.unsqueeze(-2) * keys).sum(-1, keepdim=True).softmax(-2)
        return (shares * self.fusion_value[name](added)).sum(-2)

    fusion_query: nn.ModuleDict
    fusion_key: nn.ModuleDict
    fusion_value: nn.ModuleDict
    fusion_down: nn.ModuleDict
    fusion_up: nn.ModuleDict


class FusionModel(BottleneckModel):
    """Puts a FusionLayer around every target."""

    prefix = "fusion_"
    tuner_layer_cls = FusionLayer


def finished(adapters: Mapping[str, str]) -> tuple[FusionConfig, dict[str, Tensor]]:
    """The config of a fusion of bottleneck adapters, given by name and folder, and their weights by the names that a
    fusion called "default" has for them.

    Raises ConfigError for what is no bottleneck adapter, and for adapters that stand in different places.
    """
    configs, state, places = list[dict[str, Any]](), dict[str, Tensor](), dict[str, set[str]]()
    for number, (name, folder) in enumerate(adapters.items()):
        path = Path(folder)
        told = adapter_config(name, path) if (path / PEFT_CONFIG).is_file() else {}
        if told.get("peft_type") != BOTTLENECK or not (path / PEFT_WEIGHTS).is_file():
            raise ConfigError(f"adapter.adapters.{name}: {folder} is no bottleneck adapter, and only such are fused.")
        check_tensors(path)
        for key, tensor in load_file(path / PEFT_WEIGHTS).items():
            layer, found, part = key.rpartition(".bottleneck_")
            if found:  # a classifier's head is not fused
                kind, _, rest = part.partition(".")
                state[f"{layer}.fusion_{kind}.default.{number}.{rest}"] = tensor
                places.setdefault(name, set()).add(layer)
        configs.append(told)
    (first, standing), *others = places.items()
    for name, layers in others:
        if layers != standing:
            raise ConfigError(
                f"adapter.adapters.{name}: it stands after other layers than {first}, and a fusion has one place for "
                "each: name adapters with the same target_modules."
            )
    config = FusionConfig(
        adapters=list(adapters),
        bottleneck_sizes=[told["bottleneck_size"] for told in configs],
        non_linearities=[told["non_linearity"] for told in configs],
        target_modules=configs[0]["target_modules"],
    )
    return config, state


def load_finished(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives a fresh fusion the weights of its adapters. Raises ConfigError where they do not fit the model."""
    parts = dict(model.named_parameters())
    for name, tensor in state.items():
        if name not in parts or parts[name].shape != tensor.shape:
            raise ConfigError(f"adapter.adapters: {name} of an adapter does not fit this base.")
        parts[name].data.copy_(tensor)


peft_type(NAME)
register_peft_method(name=NAME.lower(), config_cls=FusionConfig, model_cls=FusionModel, prefix=FusionModel.prefix)
