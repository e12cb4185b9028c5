"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751) as a tuner of PEFT, which has none of its own.

After each attention and each MLP, before the residual is added, stands a narrow network with a skip of its own:
`y + up(f(down(y)))`. `up` starts at zero, so that a fresh adapter computes what its base does (the paper starts near
that). Importing this file registers the tuner: `PeftModel.from_pretrained` then loads such adapters as any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import register_peft_method
from torch import nn

from ftlib.models.adapters.own_config import OwnConfig, peft_type

NAME = "BOTTLENECK"
FUNCTIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
# The last linear layer of an attention or an MLP, by the names that the architectures of transformers give it.
SUBLAYER_ENDS = (
    *("o_proj", "out_proj", "c_proj", "attention.output.dense", "attention.dense", "self_attention.dense", "out_lin"),
    *("down_proj", "fc2", "fc_out", "w2", "dense_4h_to_h", "output.dense", "lin2", "wo"),
)


@dataclass
class BottleneckConfig(OwnConfig):
    """The keys of `adapter: {type: bottleneck}`, as PEFT keeps them in `adapter_config.json`."""

    name = NAME

    bottleneck_size: int = field(default=64)
    non_linearity: str = field(default="gelu")


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A linear layer, plain or quantized, with a bottleneck of each adapter after it."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.functions: dict[str, nn.Module] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Adds the weights of one more adapter."""
        width = int(self.get_base_layer().out_features if hasattr(self.base_layer, "out_features") else self._nf())
        self.functions[adapter_name] = FUNCTIONS[config.non_linearity]()
        self.bottleneck_down[adapter_name] = nn.Linear(width, config.bottleneck_size)
        self.bottleneck_up[adapter_name] = nn.Linear(config.bottleneck_size, width)
        nn.init.zeros_(self.bottleneck_up[adapter_name].weight)
        nn.init.zeros_(self.bottleneck_up[adapter_name].bias)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _nf(self) -> int:
        """The output width of GPT-2's Conv1D."""
        return int(self.get_base_layer().nf)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Raises: between its two matrices stands a function that is not linear."""
        raise ValueError("a bottleneck adapter is not linear, so no matrix of the base can hold it.")

    def unmerge(self) -> None:
        """There is never anything to undo."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name not in self.bottleneck_down:
                continue
            down, up = self.bottleneck_down[name], self.bottleneck_up[name]
            hidden = self.functions[name](down(result.to(down.weight.dtype)))
            result = result + up(hidden).to(result.dtype)
        return result


class BottleneckModel(BaseTuner):
    """Puts a BottleneckLayer around every target."""

    prefix = "bottleneck_"
    tuner_layer_cls: type[nn.Module] = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 (PEFT's name for what _prepare_model does)

    def _prepare_adapter_config(self, peft_config: BottleneckConfig, model_config: Any) -> BottleneckConfig:
        if peft_config.target_modules is None:
            names = [name for name, part in self.model.named_modules() if hasattr(part, "weight")]
            ends = {end for end in SUBLAYER_ENDS if any(name.endswith(f".{end}") for name in names)}
            if not ends:
                raise ValueError(
                    "name the last linear layer of each sublayer, which is not known for this architecture."
                )
            peft_config.target_modules = ends
        return peft_config

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, peft_config)
            return
        layer = self.tuner_layer_cls(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


peft_type(NAME)
register_peft_method(
    name=NAME.lower(), config_cls=BottleneckConfig, model_cls=BottleneckModel, prefix=BottleneckModel.prefix
)
